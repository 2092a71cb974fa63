"""Models by name: any of torchvision's, or `timm:NAME`; PatchConvNet and FasterViT are among timm's here."""

from functools import partial
from types import SimpleNamespace

import timm
import torch
import torchvision

from beton.errors import UserError
from runtime.training.models import fastervit, model_options, patchconvnet, resnet9  # noqa: F401  two register themselves
from runtime.training.models.blurpool import apply_blurpool
from runtime.training.models.weights import load_weights_resized  # noqa: F401
from runtime.training.sections import MODEL_OPTIONS


def options(section) -> dict:
    """The options for `build` in a section `model` of the settings."""
    return {name: getattr(section, name) for name in MODEL_OPTIONS}


def build(
    arch: str, num_classes: int, pretrained: bool = False, use_blurpool: bool = False, **options
) -> torch.nn.Module:
    """A model for `num_classes` classes; raises UserError for an unknown name or an option it does not support.

    `pretrained` loads the library's default weights, except a head for another number of classes.
    `options`: those of `sections.MODEL_OPTIONS`, e.g. img_size=224.
    """
    if unknown := options.keys() - MODEL_OPTIONS.keys():
        raise TypeError(f"build() got unknown options {sorted(unknown)}")
    wanted = SimpleNamespace(**{name: param.default for name, param in MODEL_OPTIONS.items()} | options)
    try:
        if arch.startswith("timm:"):
            model = _timm_model(arch, num_classes, pretrained, wanted)
        else:
            model = _torchvision_model(arch, num_classes, pretrained, wanted)
    except OSError as error:  # no network, no room for the download
        if not pretrained:
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the weights of {arch} cannot be loaded ({reason})", "give a file of weights") from None
    model_options.apply(arch, model, wanted, pretrained)
    if use_blurpool:
        apply_blurpool(model)
    return model


def _timm_model(arch: str, num_classes: int, pretrained: bool, wanted: SimpleNamespace) -> torch.nn.Module:
    name = arch.removeprefix("timm:")
    given = {"img_size": ("img_size", wanted.img_size), "drop_path_rate": ("drop_path", wanted.drop_path)}
    if name.startswith("faster_vit"):
        fastervit.register()
        if wanted.img_size is not None:
            sized = fastervit.size_arguments(name, given.pop("img_size")[1])
            if sized is None:
                raise model_options.unknown(arch, "img_size")
            given |= {argument: ("img_size", value) for argument, value in sized.items()}
    if not timm.is_model(name):
        raise UserError(f"timm has no model '{name}'", "see timm.list_models()")
    try:
        timm.models.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise UserError(f"timm has no model '{name}' ({error})", "omit what follows the dot") from None
    if pretrained and not timm.models.is_model_pretrained(name):
        raise UserError(f"there are no weights of {arch}", "set model.pretrained=0")
    factory = partial(timm.create_model, name, pretrained=bool(pretrained), num_classes=num_classes)
    model = model_options.create(arch, factory, given)
    if wanted.layer_scale is not None and not pretrained and not model_options.layer_scales(model):
        # A ViT that has none by default can have one
        model = model_options.create(arch, factory, given | {"init_values": ("layer_scale", wanted.layer_scale)})
    return model


def _torchvision_model(arch: str, num_classes: int, pretrained: bool, wanted: SimpleNamespace) -> torch.nn.Module:
    if arch not in torchvision.models.list_models(module=torchvision.models):
        raise UserError(f"torchvision has no model '{arch}'", "see torchvision.models, or use timm:NAME")
    # In training, these two return extra outputs by default
    more = {"aux_logits": False} if arch in ("googlenet", "inception_v3") else {}
    factory = partial(torchvision.models.get_model, arch, weights=None, num_classes=num_classes, **more)
    given = {"image_size": ("img_size", wanted.img_size), "stochastic_depth_prob": ("drop_path", wanted.drop_path)}
    model = model_options.create(arch, factory, given)
    if pretrained:
        weights = torchvision.models.get_model_weights(arch).DEFAULT.get_state_dict(progress=False)
        own = model.state_dict()
        fitting = {k: v for k, v in weights.items() if k in own and v.shape == own[k].shape}
        model.load_state_dict(fitting, strict=False)
        print(f"=> pretrained weights, without {sorted(set(own) - set(fitting)) or 'exception'}")
    return model
