"""FFCV-SSL's solarized images."""

from __future__ import annotations

from dataclasses import replace

from beton.ffcv.pipeline.state import State
from beton.ffcv.transforms._drawn import Drawn
from beton.ffcv.transforms._labels import Label
from beton.kernels.jit import jit
from beton.stages.solarize import solarize_image


@jit
def _solarize(images, _, drawn, parameters):
    for n in range(len(images)):
        if drawn[n, 0] < parameters[0]:
            solarize_image(images[n], parameters[1])
    return images


@jit
def _label(labels, target, drawn, parameters):
    target[:, :-1] = labels
    for n in range(len(labels)):
        target[n, -1] = drawn[n, 0] < parameters[0]
    return target


class RandomSolarization(Drawn):
    """Invert the values from `threshold` upwards, in each image (uint8) with probability `solarization_prob`."""

    kernel = _solarize

    def __init__(self, solarization_prob: float = 0.5, threshold: float = 128, seed: int | None = None):
        super().__init__()
        self.sol_prob, self.threshold, self.seed = solarization_prob, threshold, seed

    def parameters(self) -> tuple:
        """The probability and the threshold."""
        return float(self.sol_prob), float(self.threshold)

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        """As before, in the same memory."""
        return replace(previous_state, jit_mode=True), None


class LabelSolarization(Label):
    """Whether RandomSolarization changed the image (1) or not (0)."""

    kernel = _label
    parameters = RandomSolarization.parameters

    def __init__(self, solarization_prob: float = 0.5, threshold: float = 128, seed: int | None = None):
        super().__init__()
        vars(self).update(vars(RandomSolarization(solarization_prob, threshold, seed)))
