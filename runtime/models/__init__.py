"""Models by name: any of torchvision's, or `timm:NAME`; PatchConvNet and FasterViT are among timm's here."""

from functools import partial

import timm
import torch
import torchvision

from pipelines.errors import UserError
from runtime.models import adapt, fastervit, patchconvnet, sides  # noqa: F401  patchconvnet registers itself with timm
from runtime.models.adapt import Options
from runtime.models.blurpool import apply_blurpool
from runtime.models.weights import load_weights_resized  # noqa: F401


def options(section) -> dict:
    """The options for `build` among the parameters of a `model` section of the settings."""
    return vars(Options.of(section))


def build(
    arch: str, num_classes: int, pretrained: bool = False, use_blurpool: bool = False, **options
) -> torch.nn.Module:
    """A model for `num_classes` classes; raises UserError for an unknown name or an option it does not know.

    `pretrained` loads the library's default weights, all but a head of another number of classes.
    `options`: img_size, drop_path, drop_path_constant, layer_scale, distilled, checkpointing, see `adapt.Options`.
    """
    wanted = Options(**options)
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
    adapt.apply(arch, model, wanted, pretrained)
    if use_blurpool:
        apply_blurpool(model)
    return model


def _timm_model(arch: str, num_classes: int, pretrained: bool, wanted: Options) -> torch.nn.Module:
    name = arch.removeprefix("timm:")
    given = {"img_size": ("img_size", wanted.img_size), "drop_path_rate": ("drop_path", wanted.drop_path)}
    if name.startswith("faster_vit"):
        fastervit.register()
        if wanted.img_size is not None:
            sized = fastervit.size_arguments(name, given.pop("img_size")[1])
            if sized is None:
                raise adapt.unknown(arch, "img_size")
            given |= {argument: ("img_size", value) for argument, value in sized.items()}
    if not timm.is_model(name):
        raise UserError(f"timm has no model '{name}'", "see timm.list_models()")
    try:
        timm.models.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise UserError(f"timm has no model '{name}' ({error})", "leave out what stands behind the dot") from None
    if pretrained and not timm.models.is_model_pretrained(name):
        raise UserError(f"there are no weights of {arch}", "set model.pretrained=0")
    factory = partial(timm.create_model, name, pretrained=bool(pretrained), num_classes=num_classes)
    model = adapt.create(arch, factory, given)
    if wanted.layer_scale is not None and not pretrained and not adapt.layer_scales(model):
        # A ViT that has none by default can have one
        model = adapt.create(arch, factory, given | {"init_values": ("layer_scale", wanted.layer_scale)})
    return model


def _torchvision_model(arch: str, num_classes: int, pretrained: bool, wanted: Options) -> torch.nn.Module:
    if arch not in torchvision.models.list_models(module=torchvision.models):
        raise UserError(f"torchvision has no model '{arch}'", "see torchvision.models, or use timm:NAME")
    # These two answer with extra outputs while training, unless told not to
    more = {"aux_logits": False} if arch in ("googlenet", "inception_v3") else {}
    factory = partial(torchvision.models.get_model, arch, weights=None, num_classes=num_classes, **more)
    given = {"image_size": ("img_size", wanted.img_size), "stochastic_depth_prob": ("drop_path", wanted.drop_path)}
    model = adapt.create(arch, factory, given)
    if pretrained:
        weights = torchvision.models.get_model_weights(arch).DEFAULT.get_state_dict(progress=False)
        own = model.state_dict()
        fitting = {k: v for k, v in weights.items() if k in own and v.shape == own[k].shape}
        model.load_state_dict(fitting, strict=False)
        print(f"=> pretrained weights, without {sorted(set(own) - set(fitting)) or 'exception'}")
    return model
