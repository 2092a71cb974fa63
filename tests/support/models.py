"""Models as the tests of models and of recipes look at them."""

import torch

from runtime.training import models

# Millions of parameters with 1000 classes, measured on the upstream models (recipes.md)
COUNTS = {
    "resnet18": 11.690, "resnet34": 21.798, "resnet50": 25.557, "resnet101": 44.549, "resnet152": 60.193,
    "resnext50_32x4d": 25.029, "wide_resnet50_2": 68.883, "convnext_tiny": 28.589, "convnext_small": 50.224,
    "convnext_base": 88.591, "convnext_large": 197.767, "vit_tiny_patch16_224": 5.717,
    "vit_small_patch16_224": 22.051, "vit_base_patch16_224": 86.568, "vit_large_patch16_224": 304.327,
    "vit_base_patch32_224": 88.224, "deit_tiny_patch16_224": 5.717, "deit_small_patch16_224": 22.051,
    "deit_base_patch16_224": 86.568, "deit_tiny_distilled_patch16_224": 5.911,
    "deit_small_distilled_patch16_224": 22.436, "deit_base_distilled_patch16_224": 87.338,
    "deit3_small_patch16_224": 22.059, "deit3_small_patch16_384": 22.205, "deit3_medium_patch16_224": 38.850,
    "deit3_base_patch16_224": 86.585, "deit3_base_patch16_384": 86.877, "deit3_large_patch16_224": 304.375,
    "deit3_large_patch16_384": 304.764, "deit3_huge_patch14_224": 632.126, "levit_128s": 7.777, "levit_128": 9.214,
    "levit_192": 10.947, "levit_256": 18.894, "levit_384": 39.129, "levit_conv_128s": 7.777, "levit_256d": 26.211,
    "levit_512": 95.174, "regnety_160": 83.590, "cait_xxs24_224": 11.956, "cait_xxs36_224": 17.300,
    "cait_xs24_384": 26.670, "cait_s24_224": 46.916, "cait_s36_384": 68.367, "cait_m36_384": 271.221,
    "cait_m48_448": 356.461, "resmlp_12_224": 15.351, "resmlp_24_224": 30.021, "resmlp_36_224": 44.690,
    "resmlp_big_24_224": 129.138, "vit_small_patch16_36x1_224": 64.665, "vit_small_patch16_18x2_224": 64.665,
    "vit_base_patch16_18x2_224": 256.732,
}  # fmt: skip
FASTERVIT_COUNTS = [31.40, 53.37, 75.92, 159.55, 365.56, 957.52, 1360.33]
PAPER_COUNTS = {
    "patchconvnet_s60": 25.2,
    "patchconvnet_s120": 47.7,
    "patchconvnet_b60": 99.4,
    "patchconvnet_b120": 188.6,
}


def sketch(arch, num_classes=1000, **options):
    """The model on the meta device: shapes without values, so the giants cost nothing."""
    with torch.device("meta"):
        return models.build(arch, num_classes, **options)


def millions(model):
    return sum(p.numel() for p in model.parameters()) / 1e6


def drop_rates(model):
    """The rates in the model's order, 0 where there is an Identity."""
    children = [(n, child) for m in model.modules() for n, child in m.named_children()]
    return [getattr(child, "drop_prob", 0.0) for n, child in children if "drop_path" in n]
