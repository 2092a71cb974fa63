"""Applies `sections.MODEL_OPTIONS` (model.img_size ... model.checkpointing) to models.

timm's models support most of them, each family in its own way; torchvision's a few. An option that a model does not
support is an error, never ignored.
"""

import re
from collections.abc import Callable
from types import SimpleNamespace

from timm.layers import DropPath
from torch import nn
from torchvision.ops import StochasticDepth

from beton.errors import UserError

_DROP_PATH = re.compile(r"(\w+_)?drop_path\d?")
# LayerScale's own, and the plain parameters of CaiT, BEiT, ConvNeXt, FasterViT (gamma...) and ResMLP (ls...)
_LAYER_SCALE = re.compile(r"(.*\.)?(gamma_?\d?|ls\d|layer_scale)")


def unknown(arch: str, option: str) -> UserError:
    """The error for an option that the model does not support."""
    return UserError(f"{arch} does not support model.{option}", "leave it at its default or choose another model")


def create(arch: str, factory: Callable[..., nn.Module], given: dict[str, tuple[str, object]]) -> nn.Module:
    """Call a library's factory; `given`: its argument -> (our option, value). Values of None are left out.

    Raises UserError where the model does not take an argument, or not this value.
    """
    given = {argument: pair for argument, pair in given.items() if pair[1] is not None}
    try:
        return factory(**{argument: value for argument, (_, value) in given.items()})
    except TypeError as error:
        for argument, (option, _) in given.items():
            if f"keyword argument '{argument}'" in str(error):
                raise unknown(arch, option) from None
        raise
    except (AssertionError, ValueError, RuntimeError, ArithmeticError) as error:
        if not given:
            raise
        options = ", ".join(f"model.{option}={value}" for option, value in given.values())
        raise UserError(f"{arch} cannot be built with {options} ({error})", "choose other values") from None


def apply(arch: str, model: nn.Module, options: SimpleNamespace, pretrained: bool) -> None:
    """Change a built model in place; raises UserError for options that it does not support."""
    if options.drop_path and not any(isinstance(m, DropPath | StochasticDepth) for m in model.modules()):
        raise unknown(arch, "drop_path")
    if options.drop_path_constant:
        _drop_path_everywhere(arch, model, options.drop_path)
    if options.layer_scale is not None:
        _set_layer_scale(arch, model, options.layer_scale, pretrained)
    if options.distilled:
        if not hasattr(model, "set_distilled_training"):
            raise unknown(arch, "distilled")
        model.set_distilled_training(True)
    if options.checkpointing:
        _checkpoint(arch, model)


def layer_scales(model: nn.Module) -> list[nn.Parameter]:
    """The learned factors of the residual branches, in the model's order; [] without LayerScale."""
    return [parameter for name, parameter in model.named_parameters() if _LAYER_SCALE.fullmatch(name)]


def _drop_path_everywhere(arch: str, model: nn.Module, rate: float | None) -> None:
    """Set `rate` in each residual branch; the library has scaled it there, or omitted the layer when that was 0."""
    if rate is None:
        raise UserError("model.drop_path_constant needs a rate", "set model.drop_path")
    branches = [(m, name) for m in model.modules() for name, _ in m.named_children() if _DROP_PATH.fullmatch(name)]
    if not branches:
        raise unknown(arch, "drop_path_constant")
    first = getattr(*branches[0])
    # LeViT, CaiT, ResMLP and PatchConvNet have a constant rate by themselves. Where a branch of theirs has
    # none, as in CaiT's class attention, that is intended.
    if rate == 0 or (isinstance(first, DropPath) and first.drop_prob == rate):
        return
    for parent, name in branches:
        setattr(parent, name, DropPath(rate))


def _set_layer_scale(arch: str, model: nn.Module, value: float, pretrained: bool) -> None:
    scales = layer_scales(model)
    if not scales:
        raise unknown(arch, "layer_scale")
    for scale in [] if pretrained else scales:
        nn.init.constant_(scale, value)


def _checkpoint(arch: str, model: nn.Module) -> None:
    if not hasattr(model, "set_grad_checkpointing"):
        raise unknown(arch, "checkpointing")
    try:
        model.set_grad_checkpointing(True)
    except AssertionError:  # raised by timm when a model cannot
        raise unknown(arch, "checkpointing") from None
