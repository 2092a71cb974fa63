"""Batch norm over the batches of all ranks.

On a GPU it is torch's SyncBatchNorm. That has no kernel for a CPU, on which the same is computed here from sums that
the ranks add up, so that a run on CPUs, a test say, does not depend on its number of ranks.
"""

import torch
import torch.distributed as dist
from timm.layers import SyncBatchNormAct, convert_sync_batchnorm
from torch import nn
from torch.nn import functional as F


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all ranks; what each rank's loss takes of it flows back to all."""

    @staticmethod
    def forward(ctx, own: torch.Tensor) -> torch.Tensor:
        total = own.clone()
        dist.all_reduce(total)
        return total

    backward = forward


class _OnCpu(nn.SyncBatchNorm):
    """SyncBatchNorm of N x C x ... on a CPU; the same parameters, and the same results up to rounding."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        dims, wide = [0, *range(2, x.dim())], x.double()
        count = torch.full((1,), x.numel() // x.shape[1], dtype=torch.float64)
        sums = _Sum.apply(torch.cat([wide.sum(dims), wide.square().sum(dims), count]))
        mean, square = (sums[:-1] / sums[-1]).chunk(2)
        var = (square - mean.square()).clamp_min(0)
        self._track(mean.detach(), var.detach(), sums[-1].item())
        scale = (var + self.eps).rsqrt()
        if self.affine:
            scale = scale * self.weight.double()
        shift = -mean * scale + (self.bias.double() if self.affine else 0)
        shape = [1, -1, *[1] * (x.dim() - 2)]
        return (wide * scale.view(shape) + shift.view(shape)).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: torch.Tensor, var: torch.Tensor, count: float) -> None:
        """Running statistics as torch keeps them: with the unbiased variance."""
        if not self.track_running_stats:
            return
        self.num_batches_tracked += 1
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_((var * count / max(count - 1, 1)).to(self.running_var.dtype), momentum)


class _ActOnCpu(SyncBatchNormAct, _OnCpu):
    """timm's, with the activation behind."""


_CPU = {nn.SyncBatchNorm: _OnCpu, SyncBatchNormAct: _ActOnCpu}


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with batch norm over the batches of all ranks; its parameters and their names stay.

    In place, but for a model that is a norm layer itself.
    """
    model = convert_sync_batchnorm(model)
    if device.type == "cpu":
        for module in model.modules():
            module.__class__ = _CPU.get(type(module), type(module))
    return model
