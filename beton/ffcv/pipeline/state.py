"""What is known of a batch between two operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from beton.errors import UserError


class WrongState(UserError, AssertionError):
    """A batch that cannot be in such a state; FFCV's code expects an AssertionError."""


@dataclass
class State:
    """`jit_mode`: a NumPy array that numba's code changes, or anything, for plain Python. `device`: a torch device.
    `shape`: of one sample, None where that is not known. `dtype`: NumPy's, or behind ToTensor torch's.

    Raises WrongState where compiled code would have to change a tensor on a GPU, or a torch dtype.
    """

    jit_mode: bool
    device: torch.device
    shape: tuple[int, ...] | None
    dtype: Any

    def __post_init__(self):
        if not self.jit_mode:
            return
        if torch.device(self.device).type != "cpu":
            raise WrongState(
                "an operation that numba compiles stands behind ToDevice", "put it before ToTensor and ToDevice"
            )
        if isinstance(self.dtype, torch.dtype):
            what = f"an operation that numba compiles cannot have the torch dtype {self.dtype}"
            raise WrongState(what, "give a NumPy dtype, or put it behind ToTensor with jit_mode=False in its state")
