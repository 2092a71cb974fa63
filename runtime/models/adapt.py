"""What a recipe changes in a model: the parameters model.img_size ... model.checkpointing of the scripts.

timm's models know most of them, each family in its own way; torchvision's a few. What a model does not
know is an error and never left out silently.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields

from timm.layers import DropPath
from torch import nn
from torchvision.ops import StochasticDepth

from pipelines.errors import UserError

_DROP_PATH = re.compile(r"(\w+_)?drop_path\d?")
# LayerScale's own, and the plain parameters of CaiT, BEiT, ConvNeXt, FasterViT (gamma...) and ResMLP (ls...)
_LAYER_SCALE = re.compile(r"(.*\.)?(gamma_?\d?|ls\d|layer_scale)")


@dataclass(frozen=True)
class Options:
    """What a recipe changes in a model; the defaults leave all as the library builds it."""

    img_size: int | None = None  # side of the images, for position embeddings and the like
    drop_path: float | None = None  # highest stochastic depth rate; by the model's rule, mostly linear from 0
    drop_path_constant: bool = False  # that rate in every block
    layer_scale: float | None = None  # LayerScale at the start; library weights keep their own
    distilled: bool = False  # in training, answer with the outputs of both heads; else with their mean
    checkpointing: bool = False  # recompute activations in the backward pass

    @classmethod
    def of(cls, section) -> "Options":
        """The options among the parameters of a `model` section."""
        return cls(**{field.name: getattr(section, field.name) for field in fields(cls)})


def unknown(arch: str, option: str) -> UserError:
    """The error for an option that the model has not."""
    return UserError(f"{arch} does not know model.{option}", "leave it at its default or choose another model")


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
        told = ", ".join(f"model.{option}={value}" for option, value in given.values())
        raise UserError(f"{arch} cannot be built with {told} ({error})", "choose other values") from None


def apply(arch: str, model: nn.Module, options: Options, pretrained: bool) -> None:
    """Change a built model in place; raises UserError for what it does not know."""
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
    """The learned factors of the residual branches, in the model's order; none where it has no LayerScale."""
    return [parameter for name, parameter in model.named_parameters() if _LAYER_SCALE.fullmatch(name)]


def _drop_path_everywhere(arch: str, model: nn.Module, rate: float | None) -> None:
    """The rate in each residual branch, where the library had a part of it, or nothing where that was 0."""
    if rate is None:
        raise UserError("model.drop_path_constant needs a rate", "set model.drop_path")
    places = [(m, name) for m in model.modules() for name, _ in m.named_children() if _DROP_PATH.fullmatch(name)]
    if not places:
        raise unknown(arch, "drop_path_constant")
    first = getattr(*places[0])
    # LeViT, CaiT, ResMLP and PatchConvNet have the same rate everywhere by themselves. Where one of them
    # has none, as in CaiT's class attention, it is meant so.
    if rate == 0 or (isinstance(first, DropPath) and first.drop_prob == rate):
        return
    for parent, name in places:
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
    except AssertionError:  # timm's answer where a model cannot
        raise unknown(arch, "checkpointing") from None
