"""normalize: from pixels to numbers, (pixel / 255 - mean) / std for each channel."""

from functools import cached_property

import numpy as np
import torch

from beton.kernels.jit import jit
from beton.stages import _ffcv_kernel
from beton.stages.base import Normalize, check_number

# Mean and standard deviation of ImageNet's training photos, as torchvision and ffcv-imagenet have them.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _numbers(name: str, values, low: float) -> tuple[float, ...]:
    given = values if isinstance(values, (tuple, list)) else (values,)
    for value in given:
        check_number(name, value, low, 1e6)
    if not given:
        raise ValueError(f"{name} has no numbers")
    return tuple(map(float, given))


@jit
def _look_up(images, table, target):
    count, height, width, _ = images.shape
    for n in range(count):
        for y in range(height):
            for x in range(width):
                for c in range(3):
                    target[n, y, x, c] = table[images[n, y, x, c], c]


class NormalizeStage(Normalize):
    """Subtract `mean` and divide by `std`: a number for each channel, or one for all, of pixels scaled to 0..1."""

    def __init__(self, mean=IMAGENET_MEAN, std=IMAGENET_STD):
        self.mean, self.std = _numbers("mean", mean, -1e6), _numbers("std", std, 1e-6)
        self._tables, self._kernels, self._on_device = {}, {}, {}

    def check_channels(self, channels: int) -> None:
        """Raise ValueError unless there are as many numbers, or one for all."""
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise ValueError(f"{name}={values!r} is not {'three' if channels == 3 else channels} numbers")

    def scales_and_shifts(self, channels: int, unit: float) -> tuple[np.ndarray, np.ndarray]:
        """The scales and the shifts (float32, one a channel) for values from 0 to `unit`."""
        scale, shift = 1 / (unit * np.array(self.std)), -np.array(self.mean) / self.std
        return tuple(np.broadcast_to(values, channels).astype(np.float32) for values in (scale, shift))

    @cached_property
    def scale_shift(self) -> np.ndarray:
        """float32, 6: a pixel becomes pixel * scale[c] + shift[c]."""
        return np.concatenate(self.scales_and_shifts(3, 255))

    def table(self, dtype: torch.dtype) -> np.ndarray:
        """The result for each value and channel (256 x 3): float32, or the bits (uint16) of a 16-bit type."""
        if dtype not in self._tables:
            scale, shift = torch.from_numpy(self.scale_shift).view(2, 3)
            values = (torch.arange(256, dtype=torch.float32)[:, None] * scale + shift).to(dtype)
            bits = values if dtype == torch.float32 else values.view(torch.uint16)
            self._tables[dtype] = bits.numpy()
        return self._tables[dtype]

    def apply(self, images: np.ndarray, target: np.ndarray, dtype: torch.dtype) -> None:
        """Write normalised images (uint8, n x H x W x 3) into target: float32, or uint16 bits of `dtype`."""
        _look_up(images, self.table(dtype), target)

    def on_device(self, images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The same arithmetic for uint8 images (N x C x H x W, channels_last) that are on the device already."""
        if images.is_cuda and _ffcv_kernel.available(dtype):
            if dtype not in self._kernels:
                self._kernels[dtype] = _ffcv_kernel.make(self.mean, self.std, dtype, images.device)
            return self._kernels[dtype](images)
        if images.device not in self._on_device:  # to copy them waits for the device, so once
            self._on_device[images.device] = torch.from_numpy(self.scale_shift).to(images.device).view(2, 1, 3, 1, 1)
        scale, shift = self._on_device[images.device]
        return torch.addcmul(shift, images, scale, out=torch.empty_like(images, dtype=dtype))

    def on_device_by(self, dtype: torch.dtype) -> str:
        """What on_device runs on a GPU, for the log."""
        return "FFCV's cupy kernel" if _ffcv_kernel.available(dtype) else "torch"

    def reference(self):
        """torchvision's ToTensor and Normalize."""
        from torchvision.transforms import Compose, Normalize, ToTensor

        return Compose([ToTensor(), Normalize(self.mean, self.std)])


STAGE = NormalizeStage
