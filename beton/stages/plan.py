"""How a pipeline runs: which stages become one pass of the kernels, which run after it, which on the device."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from beton.stages.base import Crop, Float, Mirror, Normalize, Pixels, Stage


@dataclass(frozen=True)
class Plan:
    """The stages of one pipeline in the order in which they run.

    The kernels crop, resize and mirror (`crop`, `mirror`) in one pass, and normalise in it where `fused`. Then
    `pixels` and, unless fused, `normalize` run one after the other, then `floats`. `on_device` is a normalize
    stage that is left for the device. What the threads write is `buffer_dtype`: uint8, float32, or uint16 for the
    bits of a 16-bit float.
    """

    crop: Crop
    mirror: Mirror | None
    pixels: tuple[Pixels, ...]
    normalize: Normalize | None
    fused: bool
    floats: tuple[Float, ...]
    on_device: Normalize | None
    dtype: Any
    buffer_dtype: np.dtype

    @property
    def scale_shift(self) -> np.ndarray:
        """What the kernels multiply and add (float32, 6); zeros where they write pixels."""
        return self.normalize.scale_shift if self.fused else np.zeros(6, np.float32)


def plan(stages: list[Stage], dtype: torch.dtype, gpu: bool) -> Plan:
    """Plan a parsed pipeline whose results have the torch `dtype`.

    On a `gpu` the pixels are sent (a quarter of the traffic) and normalised there, unless a stage of the threads
    needs the numbers.
    """
    pixels = [stage for stage in stages if isinstance(stage, Pixels)]
    floats = tuple(stage for stage in stages if isinstance(stage, Float))
    normalize = next((stage for stage in stages if isinstance(stage, Normalize)), None)
    on_device = normalize if gpu and not floats else None
    normalize = None if on_device else normalize
    mirror = pixels.pop(0) if pixels and isinstance(pixels[0], Mirror) else None
    fused = normalize is not None and not pixels and dtype == torch.float32
    if normalize is None:
        buffer_dtype = np.uint8
    else:
        buffer_dtype = np.float32 if dtype == torch.float32 else np.uint16
    return Plan(stages[0], mirror, tuple(pixels), normalize, fused, floats, on_device, dtype, np.dtype(buffer_dtype))
