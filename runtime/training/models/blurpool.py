"""BlurPool: blur before convolutions with a stride ("Making Convolutional Networks Shift-Invariant
Again", Zhang 2019), where ffcv-imagenet does it."""

import torch
from torch import nn
from torch.nn import functional as F

_FEWEST_CHANNELS = 16  # ffcv-imagenet leaves the first convolution, on the photo itself, as it is


class BlurConv2d(nn.Conv2d):
    """A convolution whose input is blurred with [1 2 1] x [1 2 1] / 16 first.

    Its parameters have the names of a plain Conv2d, so weights load into the plain model.
    """

    @classmethod
    def of(cls, conv: nn.Conv2d) -> "BlurConv2d":
        """Turn a plain convolution into this, in place: it keeps its parameters."""
        conv.__class__ = cls
        row = torch.tensor([1.0, 2.0, 1.0])
        kernel = (row[:, None] * row[None, :] / 16).expand(conv.in_channels, 1, 3, 3)
        conv.register_buffer("blur", kernel.clone(), persistent=False)
        return conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """N x C x H x W -> as Conv2d."""
        return super().forward(F.conv2d(x, self.blur.to(x.dtype), padding=1, groups=self.in_channels))


def apply_blurpool(model: nn.Module) -> None:
    """Blur before every strided convolution with at least 16 input channels."""
    for module in model.modules():
        if type(module) is nn.Conv2d and max(module.stride) > 1 and module.in_channels >= _FEWEST_CHANNELS:
            BlurConv2d.of(module)
