"""Random resized crops of images that are decoded already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from beton.ffcv.libffcv import resize_crop
from beton.ffcv.pipeline.allocation_query import AllocationQuery
from beton.ffcv.pipeline.operation import Operation
from beton.ffcv.pipeline.state import State
from beton.ffcv.transforms._drawn import ready, uniforms
from beton.rng import sample_keys
from beton.stages.rrc import Rrc


class RandomResizedCrop(Operation):
    """Cut out a random part of each image and resize it to `size` x `size` pixels.

    `scale`: bounds of the part's share of the area. `ratio`: bounds of its width / height. The decoder
    RandomResizedCropRGBImageDecoder does the same while it decodes, in less time. Called as FFCV-SSL's decoder of this
    name, without `size`, it makes that (beton.ffcv.transforms.resized_crop).
    """

    def __new__(cls, *args, **named):
        """FFCV-SSL's decoder where the arguments are its own."""
        if cls is RandomResizedCrop and len(args) < 3 and "size" not in named:
            from beton.ffcv.transforms.resized_crop import random_resized_crop

            return random_resized_crop(*args, **named)
        return super().__new__(cls)

    def __init__(self, scale: tuple[float, float], ratio: tuple[float, float], size: int):
        super().__init__()
        self.scale, self.ratio, self.size = scale, ratio, size

    def generate_code(self) -> Callable:
        """f(batch, memory)."""
        crop = Rrc(int(self.size), tuple(map(float, self.scale)), tuple(map(float, self.ratio)))

        def random_resized_crop(images, target):
            count, height, width, _ = images.shape
            keys = sample_keys(int(uniforms(1, 1)[0, 0] * (1 << 53)), 0, np.arange(count))
            boxes = crop.boxes(np.full(count, height), np.full(count, width), keys)
            for image, (top, left, h, w), made in zip(images, boxes.tolist(), target, strict=True):
                resize_crop(image, top, top + h, left, left + w, made)
            return target

        return ready(random_resized_crop)

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        """Squares of `size` pixels."""
        shape = (int(self.size), int(self.size), 3)
        return replace(previous_state, jit_mode=True, shape=shape), AllocationQuery(shape, previous_state.dtype)
