"""rrc(size): random resized crop, as torchvision's RandomResizedCrop and FFCV's decoder draw it."""

import numpy as np

from beton.kernels.jit import jit
from beton.rng import uniform
from beton.stages.base import Crop, check_choice, check_range, check_size, side_by_side
from beton.stages.filters import AREA, FILTERS

_TRIES = 10


@jit
def _boxes(heights, widths, keys, stage, scale, log_ratio):
    boxes = np.empty((len(keys), 4), np.int64)
    for n in range(len(keys)):
        height, width, key = heights[n], widths[n], keys[n]
        found = False
        for attempt in range(_TRIES):
            area = height * width * (scale[0] + (scale[1] - scale[0]) * uniform(key, stage, 4 * attempt))
            ratio = np.exp(log_ratio[0] + (log_ratio[1] - log_ratio[0]) * uniform(key, stage, 4 * attempt + 1))
            w = int(round(np.sqrt(area * ratio)))
            h = int(round(np.sqrt(area / ratio)))
            if 0 < w <= width and 0 < h <= height:
                top = int(uniform(key, stage, 4 * attempt + 2) * (height - h + 1))
                left = int(uniform(key, stage, 4 * attempt + 3) * (width - w + 1))
                found = True
                break
        if not found:
            # The largest centre crop within the bounds of the ratio
            low, high = np.exp(log_ratio[0]), np.exp(log_ratio[1])
            h, w = height, width
            if width < low * height:
                h = max(1, int(round(width / low)))
            elif width > high * height:
                w = max(1, int(round(height * high)))
            top, left = (height - h) // 2, (width - w) // 2
        boxes[n, 0], boxes[n, 1], boxes[n, 2], boxes[n, 3] = top, left, h, w
    return boxes


@jit
def _drawn_filters(keys, stage):
    filters = np.empty(len(keys), np.int64)
    for n in range(len(keys)):
        filters[n] = int(2 * uniform(keys[n], stage, 4 * _TRIES))  # the draw after those of the box
    return filters


class Rrc(Crop):
    """Cut out a random part of the photo and resize it.

    `size`: of the result in pixels, one side of a square or (height, width). `scale`: bounds of the part's share of
    the photo's area. `ratio`: bounds of its width / height, drawn uniformly in the logarithm. If ten draws do not
    fit into the photo, the largest centre crop within `ratio` is taken. `interpolation`: 'area' as FFCV resizes,
    'bilinear' or 'bicubic' as Pillow does, 'random' one of the latter two for each sample (timm's).
    """

    def __init__(
        self, size: int | tuple[int, int], scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), interpolation: str = "area"
    ):
        self.height, self.width = check_size(size)
        check_range("scale", scale, 1e-4, 1)
        check_range("ratio", ratio, 1e-3, 1e3)
        check_choice("interpolation", interpolation, ("area", *FILTERS, "random"))
        self.interpolation = interpolation
        self.scale, self.ratio = tuple(map(float, scale)), tuple(map(float, ratio))

    def boxes(self, heights: np.ndarray, widths: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Rectangles (int64, n x 4: top, left, height, width) for photos of these sizes (int64)."""
        log_ratio = (float(np.log(self.ratio[0])), float(np.log(self.ratio[1])))
        return _boxes(heights, widths, keys, self.stage_index, self.scale, log_ratio)

    def windows(self, heights: np.ndarray, widths: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """The whole of each box, resized to the size of the result (see Crop.windows)."""
        if self.interpolation == "random":
            filters = _drawn_filters(keys, self.stage_index)
        else:
            filters = FILTERS.get(self.interpolation, AREA)
        return side_by_side(len(keys), self.height, self.width, 0, 0, filters)

    def reference(self):
        """torchvision's RandomResizedCrop (PIL, so antialiased); for area bilinear, as its ImageNet example has it."""
        from torchvision.transforms import InterpolationMode, RandomResizedCrop
        from torchvision.transforms.v2 import RandomChoice

        names = {"area": ["bilinear"], "random": list(FILTERS)}.get(self.interpolation, [self.interpolation])
        size = (self.height, self.width)
        crops = [RandomResizedCrop(size, self.scale, self.ratio, InterpolationMode(name)) for name in names]
        return crops[0] if len(crops) == 1 else RandomChoice(crops)


STAGE = Rrc
