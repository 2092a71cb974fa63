"""Optimizers, and which parameters weight decay leaves alone."""

import timm.optim
import torch
from torch import nn

from pipelines.errors import UserError


def parameter_groups(model: nn.Module, weight_decay: float, decay_norms: bool) -> list[dict]:
    """Parameters with and without weight decay.

    Unless `decay_norms` (training.bn_wd), there is none for norm layers and for vectors (biases,
    scales), told by the kind of layer and the shape and not by the name: ffcv-imagenet looked for
    'bn' in the name and so decayed the norms of ResNet-50's shortcuts and of all other models. What a
    model itself names in `no_weight_decay()` (timm: position embeddings, tokens) is spared too.
    """
    norms = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
    in_norms = {id(p) for m in model.modules() if isinstance(m, norms) for p in m.parameters(recurse=False)}
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if decay_norms:
        return [{"params": list(trained.values()), "weight_decay": weight_decay}]
    named = set(model.no_weight_decay()) if hasattr(model, "no_weight_decay") else set()
    is_spared = {name: id(p) in in_norms or p.ndim < 2 or name in named for name, p in trained.items()}
    spared = [p for name, p in trained.items() if is_spared[name]]
    decayed = [p for name, p in trained.items() if not is_spared[name]]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]


def layer_groups(model: nn.Module, weight_decay: float, layer_decay: float) -> list[dict]:
    """timm's groups for layer-wise learning rates: each layer's rate is `layer_decay` times that of the next."""
    return timm.optim.param_groups_layer_decay(
        model,
        weight_decay,
        no_weight_decay_list=tuple(model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()),
        layer_decay=layer_decay,
    )


def build(name: str, groups: list[dict], momentum: float, eps: float | None = None) -> torch.optim.Optimizer:
    """An optimizer by name: 'sgd' is SGD with momentum (not Nesterov's, as in ffcv-imagenet), others are timm's.

    `eps` None leaves an optimizer its own.
    """
    if name == "sgd":
        return torch.optim.SGD(groups, lr=1.0, momentum=momentum)
    if name not in timm.optim.list_optimizers():
        raise UserError(f"unknown optimizer '{name}'", "use sgd or one of timm.optim.list_optimizers()")
    more = {} if eps is None else {"eps": eps}
    try:
        return timm.optim.create_optimizer_v2(groups, opt=name, lr=1.0, momentum=momentum, **more)
    except (ValueError, AssertionError, ImportError) as error:  # timm asserts that CUDA and packages are there
        told = f"training.momentum={momentum}" + (f" and training.eps={eps}" if more else "")
        raise UserError(f"there is no optimizer '{name}' with {told} here ({error})", "choose others") from None
