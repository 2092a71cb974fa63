"""Decoders of images.

The loader decodes, crops and flips in one pass (planned from their attributes); generate_code() is for those who call
it themselves, and for decoders of users that are made from these.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from beton.ffcv.libffcv import crop_image, decode_image
from beton.ffcv.pipeline.allocation_query import AllocationQuery
from beton.ffcv.pipeline.operation import Operation
from beton.ffcv.pipeline.state import State

_BYTE = np.dtype("<u1")


def get_random_crop(height, width, scale, ratio):
    """Top, left, height, width of a random crop (beton.ffcv.transforms.utils.fast_crop)."""
    from beton.ffcv.transforms.utils import fast_crop

    return fast_crop.get_random_crop(int(height), int(width), tuple(map(float, scale)), tuple(map(float, ratio)))


def get_center_crop(height, width, _, ratio):
    """Top, left, height, width of a centred square of `ratio` times the short side."""
    side = int(ratio * min(height, width))
    return (int(height) - side) // 2, (int(width) - side) // 2, side, side


def plain(code: Callable) -> Callable:
    """Mark a decoder's function as one that calls the kernels, and is not to be compiled."""
    code.is_ready = code.is_plain = True
    return code


def decoded(sample: int, record: Any, payload: np.ndarray) -> np.ndarray:
    """A stored image (uint8, H x W x 3). Raises ValueError, with the number of the sample, where it is damaged."""
    try:
        return decode_image(payload, int(record["mode"]), int(record["height"]), int(record["width"]))
    except ValueError as error:
        raise ValueError(f"sample {sample}: {error}") from error


def cropped(sample: int, record: Any, payload: np.ndarray, box: Any, output_size: tuple[int, int]) -> np.ndarray:
    """A part of it (`box`: top, left, height, width), resized. Raises ValueError in the same way."""
    try:
        size = int(record["height"]), int(record["width"])
        return crop_image(payload, int(record["mode"]), size, tuple(box), output_size)
    except ValueError as error:
        raise ValueError(f"sample {sample}: {error}") from error


class SimpleRGBImageDecoder(Operation):
    """Images as they are stored, all of one size."""

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, Any]:
        """Images (uint8, H x W x 3). Raises TypeError where they have several sizes."""
        heights, widths = self.metadata["height"], self.metadata["width"]
        if heights.min() != heights.max() or widths.min() != widths.max():
            sizes = f"from {heights.min()} x {widths.min()} to {heights.max()} x {widths.max()} pixels"
            what = f"SimpleRGBImageDecoder takes images of one size, and these are {sizes}"
            raise TypeError(f"{what}; use RandomResizedCropRGBImageDecoder or CenterCropRGBImageDecoder")
        shape = (int(heights[0]), int(widths[0]), 3)
        return replace(previous_state, jit_mode=True, shape=shape, dtype=_BYTE), AllocationQuery(shape, _BYTE)

    def generate_code(self) -> Callable:
        """f(indices, memory, metadata, storage_state)."""
        read = self.memory_read

        def decode(indices, target, metadata, storage_state):
            for row, sample in enumerate(indices):
                record = metadata[sample]
                target[row] = decoded(sample, record, read(record["data_ptr"], storage_state))
            return target[: len(indices)]

        return plain(decode)


class ResizedCropRGBImageDecoder(SimpleRGBImageDecoder, ABC):
    """A part of each image, resized to `output_size`, (height, width).

    A subclass gives in `get_crop_generator` a function f(height, width, scale, ratio) -> (top, left, height, width),
    and sets `scale` and `ratio`.
    """

    scale: Any = None
    ratio: Any = None

    def __init__(self, output_size: tuple[int, int]):
        super().__init__()
        self.output_size = output_size

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the images that come out."""
        size = self.output_size
        height, width = (size, size) if isinstance(size, (int, np.integer)) else size
        return int(height), int(width), 3

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, Any]:
        """Images (uint8, H x W x 3) of the output size."""
        state = replace(previous_state, jit_mode=True, shape=self.shape, dtype=_BYTE)
        return state, AllocationQuery(self.shape, _BYTE)

    def generate_code(self) -> Callable:
        """f(indices, memory, metadata, storage_state)."""
        read, draw, scale, ratio = self.memory_read, self.get_crop_generator, self.scale, self.ratio

        def decode(indices, memory, metadata, storage_state):
            target = memory[0] if isinstance(memory, tuple) else memory
            for row, sample in enumerate(indices):
                record = metadata[sample]
                box = draw(int(record["height"]), int(record["width"]), scale, ratio)
                payload = read(record["data_ptr"], storage_state)
                target[row] = cropped(sample, record, payload, box, target.shape[1:3])
            return target[: len(indices)]

        return plain(decode)

    @property
    @abstractmethod
    def get_crop_generator(self) -> Callable:
        """What draws the crop."""
        raise NotImplementedError


class RandomResizedCropRGBImageDecoder(ResizedCropRGBImageDecoder):
    """A random part of each image, resized to `output_size`, (height, width).

    `scale`: bounds of its share of the area. `ratio`: bounds of its width / height.
    """

    def __init__(self, output_size: tuple[int, int], scale=(0.08, 1.0), ratio=(0.75, 4 / 3)):
        super().__init__(output_size)
        self.scale, self.ratio = scale, ratio

    @property
    def get_crop_generator(self) -> Callable:
        """As torchvision draws it."""
        return get_random_crop


class CenterCropRGBImageDecoder(ResizedCropRGBImageDecoder):
    """The centre of each image, a square of `ratio` times its short side, resized to `output_size`."""

    def __init__(self, output_size: tuple[int, int], ratio: float):
        super().__init__(output_size)
        self.ratio = ratio

    @property
    def get_crop_generator(self) -> Callable:
        """The centre."""
        return get_center_crop
