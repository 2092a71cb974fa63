"""From arrays to tensors, to a device, to images as torch has them, to other types."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from beton.errors import UserError
from beton.ffcv.pipeline.operation import Operation
from beton.ffcv.pipeline.state import State
from beton.ffcv.transforms._drawn import ready


def torch_dtype(dtype: Any) -> torch.dtype:
    """The torch dtype of a NumPy one, or of itself. Raises TypeError where torch has none."""
    return dtype if isinstance(dtype, torch.dtype) else torch.from_numpy(np.empty(0, dtype)).dtype


def numpy_dtype(dtype: Any) -> np.dtype:
    """The NumPy dtype of a torch one, or of itself. Raises TypeError where NumPy has none."""
    return torch.empty(0, dtype=dtype).numpy().dtype if isinstance(dtype, torch.dtype) else np.dtype(dtype)


def as_tensor(batch: Any) -> torch.Tensor:
    """The same numbers as a tensor; they are not copied."""
    return torch.from_numpy(batch) if isinstance(batch, np.ndarray) else batch


class ToTensor(Operation):
    """The array as a tensor of torch, of the same numbers."""

    def generate_code(self) -> Callable:
        """f(batch, memory)."""

        def to_tensor(batch, _):
            return as_tensor(batch)

        return ready(to_tensor)

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        """Of the torch dtype; what follows is not compiled."""
        try:
            dtype = torch_dtype(previous_state.dtype)
        except TypeError as error:
            what = f"torch has no type like {previous_state.dtype}"
            raise UserError(what, "store another type, or leave out ToTensor and take arrays") from error
        return replace(previous_state, jit_mode=False, dtype=dtype), None


class ToDevice(Operation):
    """Copy the tensor to `device`, a torch device, its name or its number. `non_blocking`: beside other work of it."""

    def __init__(self, device: torch.device | str | int, non_blocking: bool = True):
        super().__init__()
        self.device, self.non_blocking = torch.device(device), non_blocking

    def generate_code(self) -> Callable:
        """f(batch, memory): the tensor is there when it returns, so the memory that it was in may be used again."""
        device, non_blocking = self.device, self.non_blocking

        def to_device(batch, _):
            batch = as_tensor(batch)
            there = batch.to(device, non_blocking=non_blocking)
            if there.is_cuda and not batch.is_cuda:
                torch.cuda.current_stream(there.device).synchronize()
            return there

        return ready(to_device)

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        """On the device."""
        dtype = torch_dtype(previous_state.dtype)
        return replace(previous_state, jit_mode=False, dtype=dtype, device=torch.device(self.device)), None


class ToTorchImage(Operation):
    """Images N x H x W x C as N x C x H x W.

    `channels_last`: a view, whose memory is as before; else a copy in torch's usual order. `convert_back_int16`:
    numbers of 16 bits are floats that NormalizeImage has made.
    """

    def __init__(self, channels_last: bool = True, convert_back_int16: bool = True):
        super().__init__()
        self.channels_last, self.convert_int16 = channels_last, convert_back_int16
        self.enable_int16conv = False

    def generate_code(self) -> Callable:
        """f(batch, memory)."""
        channels_last, convert = self.channels_last, self.convert_int16

        def to_torch_image(batch, _):
            images = as_tensor(batch)
            if convert and images.dtype == torch.int16:
                images = images.view(torch.float16)
            images = images.permute(0, 3, 1, 2)
            return images.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)

        return ready(to_torch_image)

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        """C x H x W. Raises UserError where the samples are no images."""
        if previous_state.shape is None or len(previous_state.shape) != 3:
            what = (
                f"ToTorchImage takes images, height x width x channels, and these have the shape {previous_state.shape}"
            )
            raise UserError(what, "leave it out")
        height, width, channels = previous_state.shape
        dtype = torch_dtype(previous_state.dtype)
        self.enable_int16conv = self.convert_int16 and dtype == torch.int16
        dtype = torch.float16 if self.enable_int16conv else dtype
        return replace(previous_state, jit_mode=False, shape=(channels, height, width), dtype=dtype), None


class Convert(Operation):
    """The numbers in another type, `target_dtype`, torch's or NumPy's."""

    def __init__(self, target_dtype: Any):
        super().__init__()
        self.target_dtype = target_dtype

    def generate_code(self) -> Callable:
        """f(batch, memory)."""
        of_torch, of_numpy = torch_dtype(self.target_dtype), None
        if of_torch != torch.bfloat16:
            of_numpy = numpy_dtype(self.target_dtype)

        def convert(batch, _):
            return batch.astype(of_numpy) if isinstance(batch, np.ndarray) else batch.type(of_torch)

        return ready(convert)

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        """Of that type: of NumPy's before ToTensor, of torch's behind it."""
        to = torch_dtype if isinstance(previous_state.dtype, torch.dtype) else numpy_dtype
        return replace(previous_state, jit_mode=False, dtype=to(self.target_dtype)), None


class View(Operation):
    """The bytes of the numbers taken for another type, `target_dtype`, torch's or NumPy's."""

    def __init__(self, target_dtype: Any):
        super().__init__()
        self.target_dtype = target_dtype

    def generate_code(self) -> Callable:
        """f(batch, memory)."""
        of_torch, of_numpy = torch_dtype(self.target_dtype), None
        if of_torch != torch.bfloat16:
            of_numpy = numpy_dtype(self.target_dtype)

        def view(batch, _):
            return batch.view(of_numpy) if isinstance(batch, np.ndarray) else batch.view(of_torch)

        return ready(view)

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        """Of that type, run as plain Python."""
        to = torch_dtype if isinstance(previous_state.dtype, torch.dtype) else numpy_dtype
        return replace(previous_state, jit_mode=False, dtype=to(self.target_dtype)), None
