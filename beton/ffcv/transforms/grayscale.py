"""FFCV-SSL's grey images."""

from __future__ import annotations

from dataclasses import replace

from beton.ffcv.pipeline.state import State
from beton.ffcv.transforms._drawn import Drawn
from beton.ffcv.transforms._labels import Label
from beton.kernels.jit import jit
from beton.stages.gray import gray_image


@jit
def _gray(images, _, drawn, parameters):
    for n in range(len(images)):
        if drawn[n, 0] < parameters[0]:
            gray_image(images[n])
    return images


@jit
def _label(labels, target, drawn, parameters):
    target[:, :-1] = labels
    for n in range(len(labels)):
        target[n, -1] = drawn[n, 0] < parameters[0]
    return target


class RandomGrayscale(Drawn):
    """Make each image (uint8, N x H x W x 3) grey with probability `gray_prob`."""

    kernel = _gray

    def __init__(self, gray_prob: float = 0.2, seed: int | None = None):
        super().__init__()
        self.gray_prob, self.seed = gray_prob, seed

    def parameters(self) -> tuple:
        """The probability."""
        return (float(self.gray_prob),)

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        """As before, in the same memory."""
        return replace(previous_state, jit_mode=True), None


class LabelGrayscale(Label):
    """Whether RandomGrayscale made the image grey (1) or not (0)."""

    kernel = _label
    parameters = RandomGrayscale.parameters

    def __init__(self, gray_prob: float = 0.2, seed: int | None = None):
        super().__init__()
        vars(self).update(vars(RandomGrayscale(gray_prob, seed)))
