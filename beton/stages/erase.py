"""erase: a random rectangle of the normalised image replaced by zeros or noise (random erasing).

As timm's RandomErasing does it, after Zhong, Zheng, Kang, Li and Yang, "Random Erasing Data
Augmentation", 2017. It follows normalize, since the noise is normal in the numbers and not in the pixels.
"""

import numpy as np
import torch

from beton.kernels.jit import jit
from beton.rng import bits, uniform
from beton.rng_torch import uniform_16_bits
from beton.stages.base import Float, check_number, check_range

_TRIES = 10
_NOISE = 1 + 4 * _TRIES  # the draw that begins an image's noise
_LEVELS = 1 << 16
_ROWS = 64  # images erased at a time on a device: noise of 64 bits for each value takes 77 MB at 224 px
MODES = ("const", "rand", "pixel")


@jit
def _boxes(keys, stage, p, height, width, scale, log_ratio):
    boxes = np.zeros((len(keys), 4), np.int64)
    for n in range(len(keys)):
        key = keys[n]
        if uniform(key, stage, 0) >= p:
            continue
        for first in range(1, 1 + 4 * _TRIES, 4):
            area = height * width * (scale[0] + (scale[1] - scale[0]) * uniform(key, stage, first))
            ratio = np.exp(log_ratio[0] + (log_ratio[1] - log_ratio[0]) * uniform(key, stage, first + 1))
            h, w = int(round(np.sqrt(area * ratio))), int(round(np.sqrt(area / ratio)))
            if h < height and w < width:
                boxes[n, 0] = int(uniform(key, stage, first + 2) * (height - h + 1))
                boxes[n, 1] = int(uniform(key, stage, first + 3) * (width - w + 1))
                boxes[n, 2], boxes[n, 3] = h, w
                break
    return boxes


@jit
def _noise_keys(keys, stage):
    found = np.empty(len(keys), np.uint64)
    for n in range(len(keys)):
        found[n] = bits(keys[n], stage, _NOISE)
    return found


@jit
def _fill(numbers, keys, stage, boxes, table, one_colour):
    for n in range(len(boxes)):
        top, left, height, width = boxes[n]
        noise = bits(keys[n], stage, _NOISE)  # the key of the numbers below: there are more than a stage may draw
        for y in range(height):
            for x in range(width):
                for c in range(3):
                    draw = c if one_colour else 3 * (y * width + x) + c
                    numbers[n, top + y, left + x, c] = table[bits(noise, 0, draw) >> np.uint64(48)]


class Erase(Float):
    """Replace a rectangle of each image with probability `p`.

    `mode`: by zeros ('const'), by one colour whose three numbers are normal ('rand'), or by a normal
    number for each value ('pixel'). `scale`: bounds of the rectangle's share of the image's area.
    `ratio`: bounds of its height / width, drawn uniformly in the logarithm. If ten draws do not fit
    into the image, it stays as it is.
    """

    replaces = ("RandomErasing",)

    def __init__(self, p: float = 0.25, mode: str = "pixel", scale=(0.02, 1 / 3), ratio=(0.3, 1 / 0.3)):
        check_number("p", p, 0, 1)
        if mode not in MODES:
            raise ValueError(f"mode={mode!r} is none of {', '.join(MODES)}")
        check_range("scale", scale, 1e-4, 1)
        check_range("ratio", ratio, 1e-3, 1e3)
        self.p, self.mode = float(p), mode
        self.scale, self.ratio = tuple(map(float, scale)), tuple(map(float, ratio))
        self._tables, self._on_device = {}, {}

    def table(self, dtype: torch.dtype) -> np.ndarray:
        """What is filled in for 16 random bits: quantiles of the normal distribution (within 4.3), or zeros.

        float32, or the bits (uint16) of a 16-bit type, as NormalizeStage.table.
        """
        if dtype not in self._tables:
            values = torch.zeros(_LEVELS, dtype=torch.float64)
            if self.mode != "const":
                values = torch.special.ndtri((torch.arange(_LEVELS, dtype=torch.float64) + 0.5) / _LEVELS)
            values = values.to(dtype)
            self._tables[dtype] = (values if dtype == torch.float32 else values.view(torch.uint16)).numpy()
        return self._tables[dtype]

    def boxes(self, keys: np.ndarray, height: int, width: int) -> np.ndarray:
        """Rectangles (int64, n x 4: top, left, height, width) in images of this size; of no height where none is."""
        log_ratio = (float(np.log(self.ratio[0])), float(np.log(self.ratio[1])))
        return _boxes(keys, self.stage_index, self.p, height, width, self.scale, log_ratio)

    def apply(self, numbers: np.ndarray, keys: np.ndarray, dtype: torch.dtype) -> None:
        """Erase in place in numbers (n x H x W x 3): float32, or uint16 bits of `dtype`."""
        boxes = self.boxes(keys, *numbers.shape[1:3])
        _fill(numbers, keys, self.stage_index, boxes, self.table(dtype), self.mode != "pixel")

    drawn = 5

    def draw(self, keys: np.ndarray, height: int, width: int) -> np.ndarray:
        """Rectangles as boxes() has them, and behind them the key (its bits) of the noise: int64, n x 5."""
        noise = _noise_keys(keys, self.stage_index).view(np.int64)
        return np.column_stack([self.boxes(keys, height, width), noise])

    def on_device(self, images: torch.Tensor, drawn: torch.Tensor) -> None:
        """Erase in place in images (N x 3 x H x W), to the same numbers as apply(); waits for nothing."""
        rows = drawn[:, 2].nonzero()[:, 0]  # on the host
        if not len(rows):
            return
        about = torch.cat([rows[:, None], drawn[rows]], 1)
        about = (about.pin_memory() if images.is_cuda else about).to(images.device, non_blocking=True)
        for some in about.split(_ROWS):
            self._erase(images, some)

    def _erase(self, images: torch.Tensor, about: torch.Tensor) -> None:
        """Erase in a few images; `about` (int64, n x 6, on their device) is the row of each, and what draw() says."""
        rows, (top, left, height, width, keys) = about[:, 0], about[:, 1:, None, None, None].unbind(1)
        y = torch.arange(images.shape[2], device=images.device)[:, None] - top
        x = torch.arange(images.shape[3], device=images.device) - left
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        noise = 0.0
        if self.mode != "const":
            channels = torch.arange(3, device=images.device)[:, None, None]
            draws = channels if self.mode == "rand" else 3 * (y * width + x) + channels
            noise = self._table_on(images)[uniform_16_bits(keys, draws)]
        images.index_copy_(0, rows, torch.where(inside, noise, images.index_select(0, rows)))

    def _table_on(self, images: torch.Tensor) -> torch.Tensor:
        """table() for images of this type, on their device: copied there once."""
        key = images.device, images.dtype
        if key not in self._on_device:
            table = torch.from_numpy(self.table(images.dtype))
            self._on_device[key] = (table if images.dtype == torch.float32 else table.view(images.dtype)).to(key[0])
        return self._on_device[key]

    def reference(self):
        """timm's RandomErasing. It draws the rectangle from Python's generator and the noise from torch's."""
        from timm.data.random_erasing import RandomErasing

        return RandomErasing(self.p, *self.scale, *self.ratio, mode=self.mode, device="cpu")


STAGE = Erase
