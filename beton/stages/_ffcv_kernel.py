"""FFCV's own normalisation kernel for CUDA (a lookup table in cupy), where the extra `cuda` is installed."""

import importlib.util
import sys

import numpy as np
import torch

_NUMPY = {torch.float16: np.float16, torch.float32: np.float32}


def available(dtype: torch.dtype) -> bool:
    """Whether cupy and FFCV are installed and FFCV's kernel knows this type (it has no bfloat16)."""
    stands_in = getattr(sys.modules.get("ffcv"), "__name__", "ffcv") != "ffcv"  # beton.ffcv, under its name
    return dtype in _NUMPY and not stands_in and all(map(importlib.util.find_spec, ("cupy", "ffcv")))


def make(mean: tuple, std: tuple, dtype: torch.dtype, device: torch.device):
    """A function from uint8 images (N x 3 x H x W, channels_last, on `device`) to normalised ones of `dtype`."""
    threads = torch.get_num_threads()
    from ffcv.pipeline.state import State
    from ffcv.transforms import NormalizeImage

    torch.set_num_threads(threads)  # importing ffcv sets it to 1
    stage = NormalizeImage(np.array(mean) * 255, np.array(std) * 255, _NUMPY[dtype])
    stage.declare_state_and_memory(State(jit_mode=False, device=device, shape=(1, 1, 3), dtype=torch.uint8))
    kernel = stage.generate_code()
    # FFCV moves 16-bit floats as integers of that size
    moved_as = torch.int16 if dtype == torch.float16 else dtype

    def normalize(images: torch.Tensor) -> torch.Tensor:
        return kernel(images, torch.empty(images.shape, dtype=moved_as, device=device))

    return normalize
