"""Arrays and tensors of one shape and dtype."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from beton.ffcv.fields.base import ARG_TYPE, Field
from beton.ffcv.fields.decoders import NDArrayDecoder
from beton.format.fields._array import _STOCK_HEAD as NDArrayArgsType

__all__ = ["ARG_TYPE", "NDArrayArgsType", "NDArrayDecoder", "NDArrayField", "TorchTensorField"]


class NDArrayField(Field):
    """Arrays of the NumPy dtype `dtype` and the shape `shape`."""

    def __init__(self, dtype: np.dtype, shape: tuple[int, ...]):
        self.dtype, self.shape = dtype, shape
        self.element_size = self._numpy_dtype.itemsize * math.prod(map(int, shape))

    @property
    def _numpy_dtype(self) -> np.dtype:
        return np.dtype(self.dtype)

    @property
    def metadata_type(self) -> np.dtype:
        """Where the numbers lie."""
        return np.dtype("<u8")

    @staticmethod
    def from_binary(binary: np.ndarray) -> Field:
        """See Field."""
        return NDArrayField(*_dtype_and_shape(binary))

    def to_binary(self) -> Any:
        """The shape, and the dtype as the JSON of what NumPy describes it by."""
        made = np.zeros(1, dtype=ARG_TYPE)
        head, dtype = np.zeros(1, NDArrayArgsType), json.dumps(self._numpy_dtype.descr).encode()
        head["shape"][0, : len(self.shape)], head["type_length"] = self.shape, len(dtype)
        content = head.tobytes() + dtype
        made.view(np.uint8)[: len(content)] = np.frombuffer(content, np.uint8)
        return made[0]

    def encode(self, destination: np.ndarray, field: Any, malloc: Callable) -> None:
        """See Field. The numbers may have another shape, as long as they are as many."""
        destination[0], memory = malloc(self.element_size)
        memory[:] = np.ascontiguousarray(field).reshape(-1).view(np.uint8)

    def get_decoder_class(self) -> type:
        """See Field."""
        return NDArrayDecoder


class TorchTensorField(NDArrayField):
    """Tensors of the torch dtype `dtype` and the shape `shape`."""

    def __init__(self, dtype: torch.dtype, shape: tuple[int, ...]):
        if isinstance(dtype, torch.dtype):  # else NumPy's already
            dtype = torch.zeros(0, dtype=dtype).numpy().dtype
        super().__init__(dtype, shape)

    @staticmethod
    def from_binary(binary: np.ndarray) -> Field:
        """See Field."""
        return TorchTensorField(*_dtype_and_shape(binary))

    def encode(self, destination: np.ndarray, field: Any, malloc: Callable) -> None:
        """See Field."""
        super().encode(destination, field.numpy(), malloc)


def _dtype_and_shape(binary: np.ndarray) -> tuple[np.dtype, tuple[int, ...]]:
    content = np.asarray(binary).tobytes()
    head = np.frombuffer(content, NDArrayArgsType, 1)[0]
    described = json.loads(content[NDArrayArgsType.itemsize :][: int(head["type_length"])])
    ((name, dtype, *rest),) = described if len(described) == 1 else [("", described)]
    dtype = np.dtype([tuple(part) for part in dtype] if isinstance(dtype, list) else dtype)
    return (np.dtype([(name, dtype, *rest)]) if name else dtype), tuple(np.trim_zeros(head["shape"], "b").tolist())
