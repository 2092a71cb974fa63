"""tensor: a torch tensor, such as features that another model has made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from beton.errors import UserError
from beton.format.fields._array import Numbers
from beton.format.fields.base import Encoded

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Tensor(Numbers):
    """Tensors of `dtype` (torch's, or its name) and `shape`, of which a side that is None varies; FFCV's
    TorchTensorField.

    A batch of them is what the field array gives; tensors take no stages but `pad`.
    """

    type_names = {6: "tensor", 9: "tensor"}  # FFCV knows the first
    has_torchs = True

    def __post_init__(self):
        super().__post_init__()
        if not self.torch_has:
            raise UserError(f"torch has no dtype {self.dtype}", "store an array")

    def encode(self, value: Any, choice: Any = None) -> Encoded:
        """Dense tensors of exactly the dtype, of any memory layout, on any device."""
        import torch

        if not isinstance(value, torch.Tensor):
            return Encoded(error=f"{type(value).__name__} instead of a tensor")
        try:
            plain = value.detach().cpu().resolve_conj().resolve_neg()
            plain = plain.clone(
                memory_format=torch.contiguous_format
            )  # contiguous() keeps a stride of 0 of a side of 1
            bits = plain.view(-1).view(torch.uint8).numpy()
        except (RuntimeError, TypeError) as error:
            return Encoded(error=f"the tensor is not a dense one of plain numbers ({error})")
        name = str(value.dtype).removeprefix("torch.")
        if name != self.dtype:
            return Encoded(error=f"its dtype is {name}, the field's {self.dtype}")
        return self._encoded(bits.view(self.stored_dtype).reshape(value.shape), name)

    def value(self, record: Any, payload: bytes) -> torch.Tensor:
        """The tensor. Raises ValueError with the reason where the payload is damaged."""
        return as_tensor(self.array_of(record, payload), self.dtype)


def as_tensor(bits: np.ndarray, dtype: str) -> torch.Tensor:
    """An array of the bits as a tensor of the dtype with this name; they share their memory."""
    import torch

    tensor, dtype = torch.from_numpy(bits), getattr(torch, dtype)
    return tensor if tensor.dtype == dtype else tensor.view(dtype)


FIELD = Tensor
