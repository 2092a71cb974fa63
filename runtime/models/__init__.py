"""Models by name: any of torchvision's, or `timm:NAME`."""

import timm
import torch
import torchvision

from pipelines.errors import UserError
from runtime.models.blurpool import apply_blurpool


def build(arch: str, num_classes: int, pretrained: bool = False, use_blurpool: bool = False) -> torch.nn.Module:
    """A model for `num_classes` classes; raises UserError for an unknown name.

    `pretrained` loads the library's default weights, all but a head of another number of classes.
    """
    if arch.startswith("timm:"):
        name = arch.removeprefix("timm:")
        if not timm.is_model(name):
            raise UserError(f"timm has no model '{name}'", "see timm.list_models()")
        model = timm.create_model(name, pretrained=pretrained, num_classes=num_classes)
    else:
        if arch not in torchvision.models.list_models(module=torchvision.models):
            raise UserError(f"torchvision has no model '{arch}'", "see torchvision.models, or use timm:NAME")
        # These two answer with extra outputs while training, unless told not to
        options = {"aux_logits": False} if arch in ("googlenet", "inception_v3") else {}
        model = torchvision.models.get_model(arch, weights=None, num_classes=num_classes, **options)
        if pretrained:
            weights = torchvision.models.get_model_weights(arch).DEFAULT.get_state_dict(progress=False)
            own = model.state_dict()
            fitting = {k: v for k, v in weights.items() if k in own and v.shape == own[k].shape}
            model.load_state_dict(fitting, strict=False)
            print(f"=> pretrained weights, without {sorted(set(own) - set(fitting)) or 'exception'}")
    if use_blurpool:
        apply_blurpool(model)
    return model
