"""Optimizers, and which parameters weight decay leaves alone."""

import timm.optim
import torch
from torch import nn

from pipelines.errors import UserError


def parameter_groups(model: nn.Module, weight_decay: float, decay_norms: bool) -> list[dict]:
    """Parameters with and without weight decay.

    Unless `decay_norms` (training.bn_wd), there is none for norm layers and for vectors (biases,
    scales), told by the kind of layer and the shape and not by the name: ffcv-imagenet looked for
    'bn' in the name and so decayed the norms of ResNet-50's shortcuts and of all other models.
    """
    norms = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
    in_norms = {id(p) for m in model.modules() if isinstance(m, norms) for p in m.parameters(recurse=False)}
    trained = [p for p in model.parameters() if p.requires_grad]
    if decay_norms:
        return [{"params": trained, "weight_decay": weight_decay}]
    spared = [p for p in trained if id(p) in in_norms or p.ndim < 2]
    decayed = [p for p in trained if id(p) not in in_norms and p.ndim >= 2]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]


def build(name: str, groups: list[dict], momentum: float) -> torch.optim.Optimizer:
    """An optimizer by name: 'sgd' is SGD with momentum (not Nesterov's, as in ffcv-imagenet), others are timm's."""
    if name == "sgd":
        return torch.optim.SGD(groups, lr=1.0, momentum=momentum)
    if name not in timm.optim.list_optimizers():
        raise UserError(f"unknown optimizer '{name}'", "use sgd or one of timm.optim.list_optimizers()")
    return timm.optim.create_optimizer_v2(groups, opt=name, lr=1.0, momentum=momentum)
