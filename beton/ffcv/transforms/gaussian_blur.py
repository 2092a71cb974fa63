"""FFCV-SSL's blur."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from beton.ffcv.pipeline.state import State
from beton.ffcv.transforms._drawn import Drawn
from beton.ffcv.transforms._labels import Label
from beton.kernels.jit import jit

_WIDTHS = 10  # as many standard deviations are drawn from


@jit
def _drawn_sigmas(drawn, parameters):
    """The standard deviation of each sample; 0: it is not blurred."""
    sigmas = np.zeros(len(drawn))
    for n in range(len(drawn)):
        if drawn[n, 0] < parameters[0]:
            sigmas[n] = parameters[1][int(drawn[n, 1] * len(parameters[1]))]
    return sigmas


def _blur(images, _, drawn, parameters):
    import cv2

    size = parameters[2]
    for image, sigma in zip(images, _drawn_sigmas(drawn, parameters[:2]).tolist(), strict=True):
        if sigma:
            cv2.GaussianBlur(image, (size, size), sigma, dst=image)
    return images


@jit
def _label(labels, target, drawn, parameters):
    target[:, :-1] = labels
    target[:, -1] = _drawn_sigmas(drawn, parameters)
    return target


class GaussianBlur(Drawn):
    """With probability `blur_prob` blur each image (uint8, N x H x W x 3) by a Gaussian of `kernel_size` pixels, an odd
    number, whose standard deviation is one of ten between the two of `sigma`. Beyond the edge the image is mirrored.
    """

    kernel: Callable = staticmethod(_blur)
    kinds = 2

    def __init__(self, blur_prob: float, kernel_size: int = 5, sigma=(0.1, 2.0), seed: int | None = None):
        super().__init__()
        if kernel_size % 2 != 1 or not 0 < sigma[0] < sigma[1]:
            raise ValueError(f"kernel_size={kernel_size} is not odd, or sigma={sigma} not in order and above 0")
        self.blur_prob, self.kernel_size, self.seed = blur_prob, kernel_size, seed
        self.sigmas = np.linspace(sigma[0], sigma[1], _WIDTHS)

    def parameters(self) -> tuple:
        """The probability, the standard deviations and the size."""
        return float(self.blur_prob), self.sigmas, int(self.kernel_size)

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        """As before, in the same memory."""
        return replace(previous_state, jit_mode=True), None


class LabelGaussianBlur(Label):
    """The standard deviation with which GaussianBlur blurred the image; 0: it did not."""

    kernel, kinds = _label, GaussianBlur.kinds

    def __init__(self, blur_prob: float, kernel_size: int = 5, sigma=(0.1, 2.0), seed: int | None = None):
        super().__init__()
        vars(self).update(vars(GaussianBlur(blur_prob, kernel_size, sigma, seed)))

    def parameters(self) -> tuple:
        """The probability and the standard deviations."""
        return float(self.blur_prob), self.sigmas
