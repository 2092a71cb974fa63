"""Optimizers, and which parameters are exempt from weight decay."""

import timm.optim
import torch
from torch import nn

from beton.errors import UserError

_FUSED = ("sgd", "adam", "adamw")


def load_state(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Load a state_dict, but go on fused or not as the optimizer was built, whatever the state was saved with.

    Left to itself torch takes `fused` from the state; the next scaled step would fail, or be made on the wrong device.
    """
    fused = [group.get("fused") for group in optimizer.param_groups]
    groups = [
        group | ({"fused": own} if "fused" in group else {})
        for group, own in zip(state["param_groups"], fused, strict=False)  # torch says what is wrong with their number
    ]
    optimizer.load_state_dict(state | {"param_groups": groups + state["param_groups"][len(groups) :]})


def parameter_groups(
    model: nn.Module, weight_decay: float, decay_norms: bool, layer_decay: float | None = None
) -> list[dict]:
    """Parameters with and without weight decay.

    Unless `decay_norms` (training.bn_wd), norm layers and vectors (biases, scales) are exempt. They are recognised by
    the kind of layer and the shape and not by the name: ffcv-imagenet looked for 'bn' in the name and so decayed the
    norms of ResNet-50's shortcuts and of all other models. What a model lists in `no_weight_decay()` (timm: position
    embeddings, tokens) is exempt, too. With `layer_decay` the groups are timm's for layer-wise learning rates: the rate
    of each layer is `layer_decay` times that of the next.
    """
    listed = set(model.no_weight_decay()) if hasattr(model, "no_weight_decay") else set()
    if layer_decay is not None:
        return timm.optim.param_groups_layer_decay(
            model, weight_decay, no_weight_decay_list=tuple(listed), layer_decay=layer_decay
        )
    norms = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
    in_norms = {id(p) for m in model.modules() if isinstance(m, norms) for p in m.parameters(recurse=False)}
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if decay_norms:
        return [{"params": list(trained.values()), "weight_decay": weight_decay}]
    is_exempt = {name: id(p) in in_norms or p.ndim < 2 or name in listed for name, p in trained.items()}
    exempt = [p for name, p in trained.items() if is_exempt[name]]
    decayed = [p for name, p in trained.items() if not is_exempt[name]]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0}]


def build(
    name: str, groups: list[dict], momentum: float, eps: float | None = None, fused: bool = False
) -> torch.optim.Optimizer:
    """An optimizer by name: 'sgd' is SGD with momentum (not Nesterov's, as in ffcv-imagenet), others are timm's.

    `eps` None: the optimizer's default. `fused`: one kernel for the step where torch has one (on a GPU), which also
    looks itself whether a gradient of fp16 is finite; without it the scaler waits for the GPU at every step.
    """
    faster = {"fused": True} if fused and name in _FUSED else {}
    if name == "sgd":
        return torch.optim.SGD(groups, lr=1.0, momentum=momentum, **faster)
    if name not in timm.optim.list_optimizers():
        raise UserError(f"unknown optimizer '{name}'", "use sgd or one of timm.optim.list_optimizers()")
    more = {} if eps is None else {"eps": eps}
    try:
        return timm.optim.create_optimizer_v2(groups, opt=name, lr=1.0, momentum=momentum, **more, **faster)
    except (ValueError, AssertionError, ImportError) as error:  # timm asserts that CUDA and packages are available
        options = f"training.momentum={momentum}" + (f" and training.eps={eps}" if more else "")
        raise UserError(f"cannot make the optimizer '{name}' with {options} ({error})", "choose others") from None
