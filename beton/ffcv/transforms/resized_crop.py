"""FFCV-SSL's decoders: a crop whose draw can be had as a label, corners, and whole images in a frame of one size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from beton.errors import UserError
from beton.ffcv.fields._decoders_image import (
    CenterCropRGBImageDecoder,
    RandomResizedCropRGBImageDecoder,
    ResizedCropRGBImageDecoder,
    SimpleRGBImageDecoder,
    cropped,
    decoded,
    plain,
)
from beton.ffcv.pipeline.allocation_query import AllocationQuery
from beton.ffcv.pipeline.state import State
from beton.rng import sample_keys
from beton.stages.rrc import Rrc

_LABEL = np.dtype("<i4")


def _boxes(decoder: Any, heights: np.ndarray, widths: np.ndarray, counter: int) -> np.ndarray:
    """The crops (int64, n x 4: top, left, height, width) of a batch, drawn from the seed and the batch's place."""
    crop = Rrc(1, tuple(map(float, decoder.scale)), tuple(map(float, decoder.ratio)))
    keys = sample_keys(decoder.seed, counter, np.arange(len(heights)))
    return crop.boxes(heights.astype(np.int64), widths.astype(np.int64), keys)


def _refuse_second(second_seed: int | None) -> None:
    if second_seed is not None:
        what = "`second_seed` (a second crop beside the first one) is not known here"
        raise UserError(what, "leave it out, and give another `seed`")


def random_resized_crop(output_size, scale=(0.08, 1.0), ratio=(0.75, 4 / 3), seed=None, second_seed=None):
    """A decoder that crops at random: with a `seed` the one that LabelRandomResizedCrop knows, which takes longer."""
    _refuse_second(second_seed)
    if seed is None:
        return RandomResizedCropRGBImageDecoder(output_size, scale, ratio)
    return SeededRandomResizedCrop(output_size, scale, ratio, seed)


class SeededRandomResizedCrop(RandomResizedCropRGBImageDecoder):
    """RandomResizedCropRGBImageDecoder; LabelRandomResizedCrop with the same `seed` has what was drawn."""

    def __init__(self, output_size, scale, ratio, seed: int):
        super().__init__(output_size, scale, ratio)
        self.seed = seed

    def generate_code(self) -> Callable:
        """f(indices, memory, metadata, storage_state, counter)."""
        read = self.memory_read

        def decode(indices, target, metadata, storage_state, counter):
            records = metadata[indices]
            boxes = _boxes(self, records["height"], records["width"], counter)
            for sample, record, box, image in zip(indices, records, boxes, target, strict=True):
                image[:] = cropped(sample, record, read(record["data_ptr"], storage_state), box, image.shape[:2])
            return target

        decode.with_counter = True
        return plain(decode)


class LabelRandomResizedCrop(SimpleRGBImageDecoder):
    """What RandomResizedCrop with these arguments draws (int32, N x 6): the image's width and height, then top, left,
    height and width of the crop."""

    def __init__(self, output_size, seed, scale, ratio, second_seed=None):
        _refuse_second(second_seed)
        super().__init__()
        self.output_size, self.seed, self.scale, self.ratio = output_size, seed, scale, ratio

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        """Six numbers."""
        return replace(previous_state, jit_mode=True, shape=(6,), dtype=_LABEL), AllocationQuery((6,), _LABEL)

    def generate_code(self) -> Callable:
        """f(indices, memory, metadata, storage_state, counter)."""

        def decode(indices, target, metadata, storage_state, counter):
            records = metadata[indices]
            target[:, 0], target[:, 1] = records["width"], records["height"]
            target[:, 2:] = _boxes(self, records["height"], records["width"], counter)
            return target

        decode.with_counter = True
        return plain(decode)


class CenterCrop(CenterCropRGBImageDecoder):
    """CenterCropRGBImageDecoder."""


class CornerCrop(ResizedCropRGBImageDecoder):
    """A square of `ratio` times the short side in a corner, 'top_left' and so on, resized to `output_size`."""

    def __init__(self, output_size, ratio: float, corner: str = "top_left"):
        super().__init__(output_size)
        self.ratio, self.corner = ratio, corner
        if corner not in ("top_left", "top_right", "bottom_left", "bottom_right"):
            raise ValueError(f"corner={corner!r} is none of top_left, top_right, bottom_left, bottom_right")

    @property
    def get_crop_generator(self) -> Callable:
        """The corner."""
        bottom, right = self.corner.startswith("bottom"), self.corner.endswith("right")

        def corner(height, width, _, ratio):
            side = int(ratio * min(height, width))
            return (height - side) * bottom, (width - side) * right, side, side

        return corner


class PadRGBImageDecoder(SimpleRGBImageDecoder):
    """Whole images, at the top left of black ones as high and wide as the highest and the widest."""

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        """Images (uint8, H x W x 3)."""
        shape, byte = (int(self.metadata["height"].max()), int(self.metadata["width"].max()), 3), np.dtype("<u1")
        return replace(previous_state, jit_mode=True, shape=shape, dtype=byte), AllocationQuery(shape, byte)

    def generate_code(self) -> Callable:
        """f(indices, memory, metadata, storage_state)."""
        read = self.memory_read

        def decode(indices, target, metadata, storage_state):
            target[:] = 0
            for sample, record, image in zip(indices, metadata[indices], target, strict=True):
                payload = read(record["data_ptr"], storage_state)
                image[: record["height"], : record["width"]] = decoded(sample, record, payload)
            return target

        return plain(decode)
