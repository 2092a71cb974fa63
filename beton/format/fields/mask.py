"""mask: a whole number for each pixel of an image, such as its class; cropped and mirrored as the image is."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from beton.errors import UserError
from beton.format.fields.base import Decoder, Encoded, Field

_DTYPES = ("bool", "uint8", "uint16", "int16", "int32", "int64")
_LONGEST_SIDE, _LEVEL = 65535, 6


@dataclass(frozen=True)
class Mask(Field):
    """Masks, H x W, of whole numbers of `dtype`: stored as they are, or deflated (losslessly) where that is smaller.

    A value is an array, a tensor (H x W, or 1 x H x W) or a PIL image of one channel. A batch of them is a tensor of
    the dtype, N x H x W, of the size of its image, whose crop and mirroring they share (beton/stages/like.py).
    Pixels are chosen, never mixed (nearest), as torchvision's transforms of tv_tensors.Mask do. A mask of another
    size than its image covers the same part of it.
    """

    dtype: str = "uint8"

    type_names = {10: "mask"}
    record = np.dtype([("ptr", "<u8"), ("height", "<u4"), ("width", "<u4"), ("deflated", "<u1")])
    pointer = "ptr"
    follows: ClassVar[bool] = True

    def __post_init__(self):
        name = str(self.dtype).removeprefix("torch.")
        if name not in _DTYPES:
            raise UserError(f"`dtype`={self.dtype!r} of a mask is none of {', '.join(_DTYPES)}", "give one of these")
        object.__setattr__(self, "dtype", name)

    @property
    def stored_dtype(self) -> np.dtype:
        """NumPy's dtype of what is stored."""
        return np.dtype(self.dtype).newbyteorder("<")

    # Writing

    def encode(self, value: Any, choice: Any = None) -> Encoded:
        """Whole numbers that the dtype has."""
        try:
            mask = np.asarray(value)
        except (TypeError, ValueError, RuntimeError) as error:
            return Encoded(error=f"{type(value).__name__} is no mask ({error})")
        mask = mask[0] if mask.ndim == 3 and len(mask) == 1 else mask
        if mask.ndim != 2 or mask.dtype.kind not in "bui":
            return Encoded(error=f"{mask.dtype} {mask.shape} instead of a mask: whole numbers, (H, W)")
        if not mask.size or max(mask.shape) > _LONGEST_SIDE:
            return Encoded(error=f"a mask of {mask.shape[0]} x {mask.shape[1]} pixels")
        stored = np.ascontiguousarray(mask.astype(self.stored_dtype, copy=False))
        if mask.dtype != stored.dtype and (stored != mask).any():
            return Encoded(error=f"it has numbers from {mask.min()} to {mask.max()}, and {self.dtype} has not")
        raw = stored.tobytes()
        small = zlib.compress(raw, _LEVEL)
        deflated = len(small) < len(raw)
        return Encoded((*mask.shape, deflated), np.frombuffer(small if deflated else raw, np.uint8))

    def arguments(self) -> bytes:
        """The dtype."""
        return json.dumps({"dtype": self.dtype}).encode()

    # Reading

    @classmethod
    def of_arguments(cls, type_id: int, arguments: bytes) -> Mask:
        """What arguments() has made. Raises ValueError."""
        try:
            return cls(json.loads(arguments.rstrip(b"\0"))["dtype"])
        except (TypeError, ValueError, KeyError, RecursionError, UserError) as error:
            raise ValueError(f"the dtype of a mask is damaged: {error}") from None

    def check(self, type_id: int, records: np.ndarray, sizes: np.ndarray) -> str | None:
        """Why these cannot be the records of a complete file, or None."""
        heights, widths = self.sides(records)
        raw = heights * widths * self.stored_dtype.itemsize
        if (raw == 0).any() or (np.maximum(heights, widths) > _LONGEST_SIDE).any() or (records["deflated"] > 1).any():
            return "masks without a size"
        if (np.where(records["deflated"], sizes >= raw, sizes != raw)).any():
            return "masks whose size is not that of their pixels"
        return None

    def sides(self, records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Heights and widths (int64) in pixels."""
        return records["height"].astype(np.int64), records["width"].astype(np.int64)

    def value(self, record: Any, payload: bytes | np.ndarray) -> np.ndarray:
        """The mask (H x W). Raises ValueError with the reason where the payload is damaged."""
        shape = int(record["height"]), int(record["width"])
        size = shape[0] * shape[1] * self.stored_dtype.itemsize
        if record["deflated"]:
            payload = _inflated(payload, size)
        mask = np.frombuffer(payload, self.stored_dtype).reshape(shape)
        if self.dtype == "bool" and mask.view(np.uint8).max() > 1:
            raise ValueError("it is damaged")
        return mask.astype(self.stored_dtype.newbyteorder("="))

    def describe(self, record: Any) -> str:
        """E.g. "mask of 64 x 48": width x height."""
        return f"mask of {record['width']} x {record['height']}"

    def summary(self, records: np.ndarray, sizes: np.ndarray) -> dict[str, str]:
        """Dtype, and how many are deflated."""
        deflated = int(records["deflated"].sum())
        return {"": f"{self.dtype}, {deflated} of {len(records)} deflated, {sizes.sum() / 1e6:.1f} MB"}

    def decoder(self, column, mapped, stages, dtype, gpu) -> Decoder:
        """Masks need an image to follow, or stages."""
        if stages is None:
            what = f"the mask '{column.name}' has no image to follow"
            raise UserError(what, f"give {column.name}=\"like('image')\", stages such as 'center(224)', or None")
        from beton.format.fields._mask_decoder import MaskDecoder

        return MaskDecoder(column, mapped, stages)


def _inflated(payload: bytes | np.ndarray, size: int) -> bytes:
    """So many bytes, and no memory for more. Raises ValueError where the payload has another number of them."""
    inflate = zlib.decompressobj()
    try:
        found = inflate.decompress(payload, size + 1)
    except zlib.error:
        raise ValueError("it is damaged") from None
    if len(found) != size or not inflate.eof or inflate.unused_data:
        raise ValueError("it is damaged")
    return found


FIELD = Mask
