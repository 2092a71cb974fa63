"""What array and tensor have in common: numbers of one dtype, of a shape that is fixed or varies with the sample."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from beton.errors import UserError
from beton.format.fields.base import Decoder, Encoded, Field

# FFCV's arguments: the sides of the shape (0 where there are no more), and the dtype as the JSON of NumPy's `descr`
_STOCK_HEAD = np.dtype([("shape", "<u8", 32), ("type_length", "<u8")])
_MOST_BYTES = 1 << 32  # of one sample: more than the largest page
_ONLY_TORCHS = {"bfloat16": 2} | dict.fromkeys(
    ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"), 1
)  # dtypes that NumPy lacks, and their bytes
_TORCH_KINDS = "bui"  # of NumPy's dtypes, all that torch has; and
_TORCH_NAMES = ("float16", "float32", "float64", "complex64", "complex128")


@dataclass(frozen=True)
class Numbers(Field):
    """Numbers of `dtype`, of the shape `shape`. A side that is None varies: it is stored with each sample.

    FFCV reads those without such a side; the file has another type where it cannot (`type_names`: its own first).
    """

    dtype: str
    shape: tuple[int | None, ...]

    has_torchs: ClassVar[bool] = False  # dtypes that NumPy lacks

    def __post_init__(self):
        object.__setattr__(self, "dtype", self._dtype_name(self.dtype))
        shape = tuple(self.shape) if isinstance(self.shape, Sequence) else self.shape
        if not isinstance(shape, tuple) or len(shape) > 32 or not all(map(_is_side, shape)):
            raise UserError(f"`shape`={self.shape!r} is not at most 32 whole numbers or None", "give such a tuple")
        object.__setattr__(self, "shape", tuple(None if side is None else int(side) for side in shape))
        if math.prod(side or 1 for side in self.shape) * self.stored_dtype.itemsize >= _MOST_BYTES:
            raise UserError(f"`shape`={self.shape} takes too many bytes for a sample", "split it")

    def _dtype_name(self, dtype: Any) -> str:
        name = str(dtype).removeprefix("torch.")
        if self.has_torchs and name in _ONLY_TORCHS:
            return name
        try:
            found = np.dtype(name if str(dtype).startswith("torch.") else dtype).newbyteorder("<")
        except (TypeError, ValueError, SyntaxError, OverflowError):
            raise UserError(f"`dtype`={dtype!r} is none of numbers", "give one such as 'float32'") from None
        if found.hasobject or found.names or found.subdtype or not found.itemsize:
            raise UserError(f"`dtype`={dtype!r} cannot be stored", "give one of plain numbers, or several fields")
        return found.str if found.kind in "USV" else found.name

    @property
    def stored_dtype(self) -> np.dtype:
        """NumPy's dtype of what is stored: of the bits where NumPy lacks the dtype."""
        if self.dtype in _ONLY_TORCHS:
            return np.dtype(f"<u{_ONLY_TORCHS[self.dtype]}")
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def torch_has(self) -> bool:
        """Whether torch has the dtype."""
        return self.dtype in _ONLY_TORCHS or self.dtype in _TORCH_NAMES or self.stored_dtype.kind in _TORCH_KINDS

    @property
    def varies(self) -> bool:
        """Whether samples have shapes of their own."""
        return None in self.shape

    @property
    def record(self) -> np.dtype:
        """The address, and the sides that vary."""
        sides = self.shape.count(None)
        return np.dtype([("ptr", "<u8"), ("shape", "<u4", (sides,))]) if sides else np.dtype("<u8")

    @property
    def pointer(self) -> str:
        """See Field."""
        return "ptr" if self.varies else ""

    # Writing

    def _encoded(self, array: np.ndarray, dtype: str) -> Encoded:
        """An array of the bits, of numbers of `dtype`, as it is stored."""
        if dtype != self.dtype:
            return Encoded(error=f"its dtype is {dtype}, the field's {self.dtype}")
        sides = [side for side, fixed in zip(array.shape, self.shape, strict=False) if fixed is None]
        if array.ndim != len(self.shape) or any(f not in (None, s) for s, f in zip(array.shape, self.shape)):  # noqa: B905
            return Encoded(error=f"its shape is {array.shape}, the field's {self.shape}")
        if any(side >= 1 << 32 for side in sides):
            return Encoded(error=f"a side of {array.shape} is too long")
        content = array.astype(self.stored_dtype, copy=False).tobytes()
        return Encoded((sides,) if sides else (), np.frombuffer(content, np.uint8))

    def type_id(self, records: np.ndarray) -> int:
        """FFCV's number where FFCV can read all of it."""
        stock, own = self.type_names
        return stock if self.shape and all(self.shape) and self.dtype not in _ONLY_TORCHS else own

    def arguments(self) -> bytes:
        """The dtype and the shape: as FFCV has them, or as JSON."""
        if self.type_id(None) != next(iter(self.type_names)):
            return json.dumps({"dtype": self.dtype, "shape": self.shape}).encode()
        head, dtype = np.zeros(1, _STOCK_HEAD), json.dumps(self.stored_dtype.descr).encode()
        head["shape"][0, : len(self.shape)], head["type_length"] = self.shape, len(dtype)
        return head.tobytes() + dtype

    # Reading

    @classmethod
    def of_arguments(cls, type_id: int, arguments: bytes) -> Field:
        """What arguments() has made, or FFCV. Raises ValueError."""
        try:
            if type_id != next(iter(cls.type_names)):
                given = json.loads(arguments.rstrip(b"\0"))
                return cls(given["dtype"], tuple(given["shape"]))
            head = np.frombuffer(arguments, _STOCK_HEAD, 1)[0]
            text = arguments[_STOCK_HEAD.itemsize :][: int(head["type_length"])]
            ((_, dtype),) = json.loads(text)
            if not isinstance(dtype, str):
                raise ValueError("it has several parts")
            shape = np.trim_zeros(head["shape"], "b").tolist()
            return _in_order_of(dtype, cls(dtype, tuple(shape)))
        except (TypeError, ValueError, KeyError, OverflowError, RecursionError, UserError) as error:
            raise ValueError(f"the shape or the dtype of an array is damaged: {error}") from None

    def stated_sizes(self, records: np.ndarray) -> np.ndarray:
        """Bytes of each sample: as many as its shape has."""
        fixed = math.prod(side for side in self.shape if side is not None) * self.stored_dtype.itemsize
        if not self.varies:
            return np.full(len(records), fixed, np.uint64)
        sizes = fixed * records["shape"].astype(np.float64).prod(axis=1)
        exact = fixed * records["shape"].astype(np.uint64).prod(axis=1)
        return np.where(sizes < _MOST_BYTES, exact, np.uint64(2**64 - 1))

    def shape_of(self, record: Any) -> tuple[int, ...]:
        """The shape of one sample."""
        if not self.varies:
            return self.shape
        sides = iter(record["shape"].tolist())
        return tuple(next(sides) if side is None else side for side in self.shape)

    def array_of(self, record: Any, payload: bytes | np.ndarray) -> np.ndarray:
        """The bits as an array of their own. Raises ValueError with the reason where the payload is damaged."""
        shape = self.shape_of(record)
        if not len(payload):
            return np.zeros(shape, self.stored_dtype)
        array = np.frombuffer(payload, self.stored_dtype).reshape(shape)
        check_bools(array)
        return array.astype(self.stored_dtype.newbyteorder("="))

    def describe(self, record: Any) -> str:
        """The shape of the sample, where it varies."""
        return " x ".join(map(str, self.shape_of(record))) if self.varies else ""

    def summary(self, records: np.ndarray, sizes: np.ndarray) -> dict[str, str]:
        """Dtype and shape."""
        shape = " x ".join("?" if side is None else str(side) for side in self.shape) or "one number"
        return {"": f"{self.dtype}, {shape}, {sizes.sum() / 1e6:.1f} MB"}

    def decoder(self, column, mapped, stages, dtype, gpu) -> Decoder:
        """Rows as they are stored; `pad`, where shapes vary."""
        from beton.format.fields._array_decoder import open_decoder

        return open_decoder(column, mapped, stages, dtype)


def check_bools(array: np.ndarray) -> None:
    """Raise ValueError where bytes of a bool array are neither 0 nor 1."""
    if array.dtype == np.bool_ and array.size and array.view(np.uint8).max() > 1:
        raise ValueError("it is damaged")


def _is_side(side: Any) -> bool:
    return side is None or (isinstance(side, (int, np.integer)) and not isinstance(side, bool) and 0 <= side < 1 << 32)


def _in_order_of(dtype: str, field: Numbers) -> Numbers:
    """The field, if FFCV has stored the bytes of its numbers in our order; else one that turns them."""
    if np.dtype(dtype).newbyteorder("<") == np.dtype(dtype):
        return field
    turned = type(type(field).__name__, (type(field),), {"stored_dtype": np.dtype(dtype)})
    return turned(field.dtype, field.shape)
