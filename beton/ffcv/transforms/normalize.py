"""Normalised images, by a table of what each of the 256 values becomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from beton.ffcv.pipeline.allocation_query import AllocationQuery
from beton.ffcv.pipeline.operation import Operation
from beton.ffcv.pipeline.state import State
from beton.ffcv.transforms._drawn import ready
from beton.ffcv.transforms.ops import torch_dtype
from beton.kernels.jit import jit


@jit
def _look_up(images, table, target):
    pixels, numbers = images.reshape(-1, 3), target.reshape(-1, 3)
    for i in range(len(pixels)):
        for c in range(3):
            numbers[i, c] = table[pixels[i, c], c]


class NormalizeImage(Operation):
    """(pixel - `mean`) / `std` of each channel (pixels and these are 0..255), in the NumPy dtype `type`.

    Of arrays and tensors of uint8, N x H x W x 3, or N x 3 x H x W behind ToTorchImage. Of an array, the bits of 16-bit
    floats are numbers of the type int16: View or ToTorchImage makes floats of them.
    """

    def __init__(self, mean: np.ndarray, std: np.ndarray, type: np.dtype):  # noqa: A002 as FFCV has it
        super().__init__()
        self.mean, self.std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
        self.original_dtype = np.dtype(type)
        table = ((np.arange(256)[:, None] - self.mean) / self.std).astype(self.original_dtype)
        self.dtype = np.dtype(np.int16) if self.original_dtype == np.float16 else self.original_dtype
        self.lookup_table = np.ascontiguousarray(np.broadcast_to(table, (256, 3))).view(self.dtype)
        self.mode, self._channels_first = "cpu", False

    def generate_code(self) -> Callable:
        """f(batch, memory) for arrays; for tensors where the state before was one of theirs."""
        return self._for_tensors() if self.mode == "gpu" else self._for_arrays()

    def _for_arrays(self) -> Callable:
        table = self.lookup_table

        def normalize(images, target):
            _look_up(images, table, target)
            return target

        return ready(normalize)

    def _for_tensors(self) -> Callable:
        table, dtype, first = self.lookup_table, torch_dtype(self.original_dtype), self._channels_first
        scale = torch.tensor(1 / self.std, dtype=torch.float32).broadcast_to(3).contiguous()
        shift = torch.tensor(-self.mean / self.std, dtype=torch.float32).broadcast_to(3).contiguous()
        there = {}

        def normalize(images, _):
            if first:
                images = images.permute(0, 2, 3, 1)
            made = torch.empty_like(images, dtype=dtype, memory_format=torch.contiguous_format)
            if images.is_cuda:
                if images.device not in there:
                    there[images.device] = scale.to(images.device), shift.to(images.device)
                of_device = there[images.device]
                torch.addcmul(of_device[1], images, of_device[0], out=made)
            else:
                bits = made.view(torch.int16) if dtype == torch.float16 else made
                _look_up(images.contiguous().numpy(), table, bits.numpy())
            return made.permute(0, 3, 1, 2) if first else made

        return ready(normalize)

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery | None]:
        """Of the type; an array in other memory. Raises ValueError where it is no image of bytes."""
        shape, dtype = previous_state.shape, previous_state.dtype
        if dtype not in (np.uint8, torch.uint8):
            raise ValueError(
                f"NormalizeImage takes images of uint8, and these are {dtype}; put it before what changes it"
            )
        if shape is None or len(shape) != 3 or 3 not in (shape[0], shape[2]):
            raise ValueError(f"NormalizeImage takes images of three channels, and these have the shape {shape}")
        is_tensor = isinstance(dtype, torch.dtype)
        self.mode, self._channels_first = ("gpu" if is_tensor else "cpu"), shape[2] != 3
        if is_tensor:
            return replace(previous_state, jit_mode=False, dtype=torch_dtype(self.original_dtype)), None
        query = AllocationQuery(shape, self.dtype)
        return replace(previous_state, jit_mode=True, dtype=self.dtype), query


def ch_dtype_from_numpy(dtype: Any) -> torch.dtype:
    """The torch dtype of a NumPy one."""
    return torch_dtype(dtype)
