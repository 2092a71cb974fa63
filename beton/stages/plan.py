"""How a pipeline runs: which stages become one pass of the kernels, which run after it, which on the device."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from beton.stages.base import Crop, Float, Mirror, Move, Normalize, Paint, Pixels, Stage


@dataclass(frozen=True)
class Plan:
    """The stages of one pipeline in the order in which they run.

    The kernels crop, resize, mirror and move (`crop`, `mirror`, `move`) in one pass, and normalise in it where `fused`.
    Then `pixels` and, unless fused, `normalize` run one after the other, then `paints` and `floats`. `on_device` is a
    normalize stage that is left for the device, and with it the floats. What the threads write is `buffer_dtype`:
    uint8, float32, or uint16 for the bits of a 16-bit float.
    """

    crop: Crop
    mirror: Mirror | None
    move: Move | None
    pixels: tuple[Pixels, ...]
    normalize: Normalize | None
    fused: bool
    paints: tuple[Paint, ...]
    floats: tuple[Float, ...]
    on_device: Normalize | None
    dtype: Any
    buffer_dtype: np.dtype

    def places(self, heights: np.ndarray, widths: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """What the kernels do with photos of these sizes (int64, n x 12): box, window, mirrored or not, move."""
        places = np.zeros((len(keys), 12), np.int64)
        places[:, :4] = self.crop.boxes(heights, widths, keys)
        places[:, 4:9] = self.crop.windows(heights, widths, keys)
        return self._moved(places, keys)

    def crop_of_all(self, heights: np.ndarray, widths: np.ndarray) -> np.ndarray | None:
        """Where all photos of these sizes are cropped alike, how (int64, 12: places() without mirror and move)."""
        if self.crop.draws or not len(heights) or (heights != heights[0]).any() or (widths != widths[0]).any():
            return None
        one = heights[:1], widths[:1], np.zeros(1, np.uint64)
        return np.concatenate([self.crop.boxes(*one)[0], self.crop.windows(*one)[0], np.zeros(3, np.int64)])

    def places_of(self, crop: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """The same as places(), by what crop_of_all() has found."""
        places = np.empty((len(keys), 12), np.int64)
        places[:] = crop
        return self._moved(places, keys)

    def _moved(self, places: np.ndarray, keys: np.ndarray) -> np.ndarray:
        if self.mirror:
            places[:, 9] = self.mirror.mirrors(keys)
        if self.move:
            places[:, 10:] = self.move.moves(keys)
        return places

    @property
    def colours(self) -> np.ndarray:
        """What the kernels show beyond the edges of a photo (-1: it is mirrored there) and where an image was moved
        away: 0xRRGGBB (int64, 2)."""
        beyond, free = self.crop.fill, self.move.fill if self.move else (0, 0, 0)
        return np.array([-1 if beyond is None else _number(beyond), _number(free)])

    def number_of(self, colour: tuple[int, int, int]) -> np.ndarray:
        """A colour as it is in the images that the threads write (3, of `buffer_dtype`)."""
        return np.array(colour, np.uint8) if self.normalize is None else self.normalize.of(colour, self.dtype)

    @property
    def scale_shift(self) -> np.ndarray:
        """What the kernels multiply and add (float32, 6); zeros where they write pixels."""
        return self.normalize.scale_shift if self.fused else np.zeros(6, np.float32)


def plan(stages: list[Stage], dtype: torch.dtype, gpu: bool) -> Plan:
    """Plan a parsed pipeline whose results have the torch `dtype`.

    On a `gpu` the pixels are sent (a quarter of the traffic) and normalised there, and what follows is done there too,
    unless a stage can only be run by the threads.
    """
    pixels = [stage for stage in stages if isinstance(stage, Pixels)]
    floats = tuple(stage for stage in stages if isinstance(stage, Float))
    normalize = next((stage for stage in stages if isinstance(stage, Normalize)), None)
    on_device = normalize if gpu and all(stage.runs_on_device for stage in floats) else None
    normalize = None if on_device else normalize
    mirror = pixels.pop(0) if pixels and isinstance(pixels[0], Mirror) else None
    move = pixels.pop(0) if pixels and isinstance(pixels[0], Move) else None
    paints = []
    while pixels and isinstance(pixels[-1], Paint):
        paints.insert(0, pixels.pop())
    fused = normalize is not None and not pixels and dtype == torch.float32
    if normalize is None:
        buffer_dtype = np.uint8
    else:
        buffer_dtype = np.float32 if dtype == torch.float32 else np.uint16
    about = tuple(pixels), normalize, fused, tuple(paints), floats, on_device, dtype, np.dtype(buffer_dtype)
    return Plan(stages[0], mirror, move, *about)


def _number(colour: tuple[int, int, int]) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]
