"""FFCV's operations as stages of this library: what the fused pass can take over."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch

from beton.ffcv.crops import CentreSquare, Whole
from beton.ffcv.fields.decoders import (
    CenterCropRGBImageDecoder,
    RandomResizedCropRGBImageDecoder,
    ResizedCropRGBImageDecoder,
    SimpleRGBImageDecoder,
)
from beton.ffcv.pipeline.operation import Operation
from beton.ffcv.transforms import Convert, Cutout, NormalizeImage, RandomHorizontalFlip, RandomTranslate
from beton.ffcv.transforms.module import ModuleWrapper
from beton.stages.base import Crop, Normalize, Pixels
from beton.stages.cutout import Cutout as CutoutStage
from beton.stages.flip import Flip
from beton.stages.normalize import NormalizeStage
from beton.stages.rrc import Rrc
from beton.stages.translate import Translate

_FLOATS = {torch.float32, torch.float16, torch.bfloat16}


def is_plain(operation: Any, kind: type) -> bool:
    """Whether an operation is of this class, or of one that changes nothing of what it does."""
    what_it_does = ("generate_code", "declare_state_and_memory", "get_crop_generator", "accept_field")
    own = type(operation)
    return isinstance(operation, kind) and all(
        getattr(own, name, None) is getattr(kind, name, None) for name in what_it_does
    )


def size_of(decoder: ResizedCropRGBImageDecoder) -> tuple[int, int]:
    """Height and width that a decoder makes."""
    size = decoder.output_size
    height, width = (size, size) if isinstance(size, (int, np.integer)) else size
    return int(height), int(width)


def crop_of(decoder: Operation) -> Crop | None:
    """A decoder of images as a stage; None for one of the user's own. Raises ValueError for wrong arguments."""
    if is_plain(decoder, SimpleRGBImageDecoder):
        return Whole(int(decoder.metadata["height"][0]), int(decoder.metadata["width"][0]))
    if is_plain(decoder, CenterCropRGBImageDecoder):
        return CentreSquare(size_of(decoder), float(decoder.ratio))
    if is_plain(decoder, RandomResizedCropRGBImageDecoder):
        scale, ratio = ([float(bound) for bound in pair] for pair in (decoder.scale, decoder.ratio))
        return Rrc(size_of(decoder), scale, ratio)
    return None


def pixels_of(operation: Any) -> Pixels | None:
    """An operation on pixels as a stage; None for what is none, and for FFCV-SSL's with seeds of their own."""
    if getattr(operation, "seed", None) is not None:
        return None
    if is_plain(operation, RandomHorizontalFlip):
        return Flip(float(operation.flip_prob))
    if is_plain(operation, RandomTranslate):
        return Translate(int(operation.padding), _colour(operation.fill))
    if is_plain(operation, Cutout):
        return CutoutStage(int(operation.crop_size), _colour(operation.fill))
    return None


def _colour(fill: Any) -> tuple[int, ...]:
    """A colour as numba stores it into pixels: without what is behind the point."""
    numbers = [int(number) for number in np.broadcast_to(np.asarray(fill), 3).tolist()]
    return tuple(number & 0xFF for number in numbers)


class Looked(NormalizeStage):
    """Normalised by a table of what FFCV's operations make of the 256 values of each channel: to the bit."""

    def __init__(self, values: torch.Tensor, name: str):
        """`values`: 256 x 3, of the dtype of the result."""
        super().__init__()
        self._made, self._name = values.contiguous(), name

    @property
    def name(self) -> str:
        """Of the operations."""
        return self._name

    def table(self, dtype: torch.dtype) -> np.ndarray:
        """See NormalizeStage."""
        return (self._made if dtype == torch.float32 else self._made.view(torch.uint16)).numpy()

    @property
    def scale_shift(self) -> np.ndarray:
        """float32, 6: the line through the table, for the kernels, which multiply and add."""
        values = self._made.double().numpy()
        scale = (values[255] - values[0]) / 255
        return np.concatenate([scale, values[0]]).astype(np.float32)

    def of(self, colour: tuple[int, int, int], dtype: Any) -> np.ndarray:
        """See Normalize."""
        table = self.table(dtype)
        return np.array([table[number, c] for c, number in enumerate(colour)], table.dtype)


def normalize_of(operations: list[Any]) -> tuple[Normalize, torch.dtype, int] | None:
    """The operations that begin here and turn pixels (uint8, N x 3 x H x W) into floats as one stage; its dtype, and
    how many they are. None where they are not such."""
    first = operations[0] if operations else None
    if is_plain(first, NormalizeImage):
        dtype = torch.from_numpy(np.empty(0, first.original_dtype)).dtype
        if dtype not in _FLOATS:
            return None
        table = np.ascontiguousarray(first.lookup_table).view(first.original_dtype)
        return Looked(torch.from_numpy(np.broadcast_to(table, (256, 3)).copy()), "NormalizeImage"), dtype, 1
    if is_plain(first, Convert) and len(operations) > 1 and _is_normalize(operations[1]):
        dtype = first.target_dtype
        if dtype not in _FLOATS:
            return None
        # By themselves, so that their rounding is theirs
        values = torch.arange(256).view(256, 1, 1, 1).expand(256, 3, 1, 1).to(dtype)
        made = operations[1].module(values)
        if made.shape == values.shape and made.dtype == dtype:
            return Looked(made.reshape(256, 3), "Convert, Normalize"), dtype, 2
    return None


def _is_normalize(operation: Any) -> bool:
    """Whether it is torchvision's Normalize, of either kind; which is not imported to know."""
    if not isinstance(operation, ModuleWrapper):
        return False
    names = ("torchvision.transforms", "torchvision.transforms.v2")
    kinds = [getattr(sys.modules[name], "Normalize", None) for name in names if name in sys.modules]
    return any(type(operation.module) is kind for kind in kinds)
