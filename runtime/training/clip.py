"""Clipping of gradients: timm's, and adaptive clipping in a few operations for all parameters together."""

import torch
from timm.models import model_parameters
from timm.utils import dispatch_clip_grad
from torch import nn

# Of timm's adaptive_clip_grad
_LEAST_NORM, _LEAST_GRADIENT = 1e-3, 1e-6


def clip_gradients(model: nn.Module, limit: float, mode: str) -> None:
    """Clip the gradients of a model in place: `mode` is timm's "norm", "value" or "agc"."""
    # Adaptive clipping excludes the head, as in its paper and in timm
    parameters = model_parameters(model, exclude_head=mode == "agc")
    if mode == "agc":
        _clip_adaptively(parameters, limit)
    else:
        dispatch_clip_grad(parameters, limit, mode=mode)


@torch.no_grad()
def _clip_adaptively(parameters, factor: float) -> None:
    """The gradient of each unit to at most `factor` times the norm of its weights (Brock et al. 2021).

    timm's formula; it launches ten kernels for each parameter, which takes a GPU longer than their work.
    """
    trained = [parameter for parameter in parameters if parameter.grad is not None]
    if not trained:
        return
    gradients = [parameter.grad for parameter in trained]
    most = torch._foreach_clamp_min(list(map(_unit_norm, trained)), _LEAST_NORM)
    torch._foreach_mul_(most, factor)
    torch._foreach_div_(most, torch._foreach_clamp_min(list(map(_unit_norm, gradients)), _LEAST_GRADIENT))
    torch._foreach_clamp_max_(most, 1.0)
    torch._foreach_mul_(gradients, most)


def _unit_norm(values: torch.Tensor) -> torch.Tensor:
    """Of each output of a layer (the first dimension); of a vector as a whole."""
    if values.ndim <= 1:
        return torch.linalg.vector_norm(values)
    return torch.linalg.vector_norm(values, dim=tuple(range(1, values.ndim)), keepdim=True)
