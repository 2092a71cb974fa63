"""ResNet-9 for photos of 32 px: the network of FFCV's CIFAR-10 recipe, after D. Page's for DAWNBench (2018)."""

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn


class ResNet9(nn.Module):
    """Eight convolutions, two residual steps and a linear layer.

    N x 3 x H x W -> N x num_classes; H and W from 16 on.
    """

    def __init__(self, num_classes: int = 10, in_chans: int = 3, img_size: int = 32):
        super().__init__()
        self.num_classes = num_classes
        self.stem = nn.Sequential(_conv(in_chans, 64), _conv(64, 128, kernel=5, stride=2))
        self.stage_1 = _Residual(_conv(128, 128), _conv(128, 128))
        self.widen = nn.Sequential(_conv(128, 256), nn.MaxPool2d(2))
        self.stage_2 = _Residual(_conv(256, 256), _conv(256, 256))
        self.last = nn.Sequential(_conv(256, 128, padding=0), nn.AdaptiveMaxPool2d(1), nn.Flatten())
        self.head = nn.Linear(128, num_classes, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores of the classes, scaled down so that the loss begins gently."""
        features = self.stage_2(self.widen(self.stage_1(self.stem(images))))
        return 0.2 * self.head(self.last(features))


class _Residual(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + super().forward(x)


def _conv(width_in: int, width_out: int, kernel: int = 3, stride: int = 1, padding: int | None = None) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU."""
    padding = kernel // 2 if padding is None else padding
    conv = nn.Conv2d(width_in, width_out, kernel, stride, padding, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width_out), nn.ReLU(inplace=True))


default_cfgs = generate_default_cfgs({"resnet9_cifar.untrained": {"input_size": (3, 32, 32), "num_classes": 10}})


@register_model
def resnet9_cifar(pretrained: bool = False, **kwargs) -> ResNet9:
    """2.3 M parameters for 10 classes."""
    return build_model_with_cfg(ResNet9, "resnet9_cifar", pretrained, **kwargs)
