"""The model of every file under vit_configs/: parameters, drop path, LayerScale, the image side that it takes.

All are built on the meta device, so the giants cost nothing.
"""

import importlib.util

import pytest
import torch

from runtime.training import models
from runtime.training.models import model_options
from tests.support.configs import FILES, FOLDER, name_of, settings_of
from tests.support.models import COUNTS, FASTERVIT_COUNTS, PAPER_COUNTS, drop_rates, millions

# Parameters that a config's model has beside those of recipes.md, whose models have 1000 classes and their own side.
# (patches of a side, squared) x width: position embeddings; 990 x (width + 1): the head, of 10 classes
DIFFERENCES = {
    "cait/cait_s24_384_finetune": (24**2 - 14**2) * 384,
    "deit3/b_1k_192": (12**2 - 14**2) * 768,
    "deit3/l_1k_192": (12**2 - 14**2) * 1024,
    "deit3/h_1k_160": (11**2 - 16**2) * 1280,  # 160 is not a multiple of the patch's 14
    "deit3/h_21k_128": (9**2 - 16**2) * 1280,
    "clothing/cait_xxs24": (6**2 - 14**2) * 192 - 990 * 193,
    # LayerScale, two in each of 12 blocks: a ViT has none of its own
    "clothing/deit3_tiny": (6**2 - 14**2) * 192 - 990 * 193 + 2 * 12 * 192,
    "clothing/faster_vit_0": -990 * 513,
    # Two heads. Attention biases, one for each head and place: blocks x heads, and the shrinking one that follows
    "clothing/levit_128s": -2 * 990 * 385
    + (8**2 - 14**2) * (2 * 4 + 8)
    + (4**2 - 7**2) * (3 * 6 + 16)
    + (2**2 - 4**2) * 4 * 8,
    "clothing/document_levit_128s": -2 * 990 * 385
    + (4**2 - 14**2) * (2 * 4 + 8)
    + (2**2 - 7**2) * (3 * 6 + 16)
    + (1**2 - 4**2) * 4 * 8,
    "clothing/document_vit_b_16": (4**2 - 14**2) * 768 - 990 * 769,
    "clothing/patchconvnet_s60": -990 * 385,
    # In each of 12 blocks a linear layer from patches to patches
    "clothing/resmlp_12": 12 * (36 * 37 - 196 * 197) - 990 * 385,
}
# timm's CaiT-S24 in the table is the one for 224 px, and torchvision's ViT-B has the parameters of timm's
SAME = {"cait_s24_384": "cait_s24_224", "vit_b_16": "vit_base_patch16_224"}
FASTER_VIT_DEPTHS = [(2, 3, 6, 5), (1, 3, 8, 5), (3, 3, 8, 5), *[(3, 3, 12, 5)] * 3, (3, 3, 16, 8)]


@pytest.fixture(scope="module", params=FILES, ids=name_of)
def built(request):
    """A config's name, its settings, its number of classes and its model, built as train_transformers.py does."""
    name, found = name_of(request.param), settings_of(request.param)
    assert not found.model.pretrained, "it would load weights"
    classes = 10 if name.startswith("clothing") else 1000
    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        if "faster_vit" in found.model.arch:
            if importlib.util.find_spec("fastervit") is None:
                pytest.skip("fastervit is not installed")
            # The package reads its drop path rates from a tensor, which the meta device does not allow
            linspace = torch.linspace
            patch.setattr(torch, "linspace", lambda *args, **kwargs: linspace(*args, **kwargs, device="cpu"))
        model = models.build(found.model.arch, classes, found.model.pretrained, **models.options(found.model))
    assert all(p.is_meta for p in model.parameters())
    return name, found, classes, model


def patchconvnet_parameters(width, depth, classes=1000):
    """By the layers that recipes.md lists; the paper has its counts to three digits only."""
    stem = 9 * (3 * width // 8 + width // 8 * width // 4 + width // 4 * width // 2 + width // 2 * width)
    excite = 2 * width * width // 4 + width // 4 + width
    block = 2 * width + (width + 1) * width + 10 * width + excite + (width + 1) * width + width
    attention = 3 * width**2 + (width + 1) * width
    mlp = (width + 1) * 3 * width + (3 * width + 1) * width
    pool = width + 2 * width + attention + width + 2 * width + mlp + width
    return stem + depth * block + pool + 2 * width + (width + 1) * classes


def test_parameters(built):
    name, found, _, model = built
    arch = found.model.arch.removeprefix("timm:")
    # The tables are of millions, rounded; half their last digit is far less than 0.1 %
    within = 5e-4
    if arch.startswith("faster_vit"):
        expected, within = FASTERVIT_COUNTS[int(arch.split("_")[2])], 5e-3
    elif arch.startswith("patchconvnet"):
        size = arch.removeprefix("patchconvnet_")
        count = patchconvnet_parameters({"s": 384, "b": 768}[size[0]], int(size[1:]))
        assert count / 1e6 == pytest.approx(PAPER_COUNTS[arch], abs=0.05)
        expected, within = count / 1e6, 1e-9
    else:
        expected = COUNTS[SAME.get(arch, arch)]
    expected += DIFFERENCES.get(name, 0) / 1e6
    assert millions(model) == pytest.approx(expected, abs=within)
    assert within < 1e-3 * expected


def rates_of(name, found):
    """The drop path rates of a model's residual branches, in order, by its family's rule."""
    arch, rate = found.model.arch.removeprefix("timm:"), found.model.drop_path or 0
    if arch == "vit_b_16":
        return []  # torchvision's has none
    if arch.startswith("levit"):
        # Attention and MLP of each block; before the second and the third stage one more MLP
        return [rate] * (2 * (9 if arch == "levit_128s" else 12) + 2)
    if arch.startswith("cait"):
        # Both branches of a block share a module; the two blocks of class attention have none
        return [rate] * int("".join(filter(str.isdigit, arch.split("_")[1]))) + [0] * 2
    if arch.startswith(("resmlp", "patchconvnet")):
        return [rate] * int("".join(filter(str.isdigit, arch.split("_")[1])))
    if arch.startswith("faster_vit"):
        depths = FASTER_VIT_DEPTHS[int(arch.split("_")[2])]
        branches = [2 if stage == 2 else 1 for stage, depth in enumerate(depths) for _ in range(depth)]
    elif "18x2" in arch or "36x1" in arch:
        branches = [4] * 18 if "18x2" in arch else [2] * 36
    else:
        branches = [2] * (32 if "huge" in arch else 24 if "large" in arch else 12)
    constant, last = found.model.drop_path_constant, len(branches) - 1
    return [rate if constant else rate * block / last for block, n in enumerate(branches) for _ in range(n)]


def test_drop_path(built):
    name, found, _, model = built
    expected = rates_of(name, found)
    assert drop_rates(model) == pytest.approx(expected, abs=1e-7)
    assert max(expected, default=0) == (found.model.drop_path or 0)


def test_layer_scale_and_heads(built):
    name, found, _, model = built
    scales = len(model_options.layer_scales(model))
    if found.model.layer_scale is not None:
        assert scales == len(rates_of(name, found))  # one on each branch; their values: below
    elif "cait" in name or "resmlp" in name or "patchconvnet" in name:
        assert scales > 0
    assert getattr(model, "distilled_training", False) == bool(found.model.distilled)


def test_it_takes_the_images_of_its_config(built):
    _, found, classes, model = built
    side = found.data.resolution
    assert found.validation.resolution == side
    with torch.inference_mode():
        assert model.eval()(torch.empty(2, 3, side, side, device="meta")).shape == (2, classes)


@pytest.mark.parametrize("name", ["deit3/s_1k_224", "clothing/deit3_tiny"])
def test_layer_scale_begins_as_the_config_says(name):
    found = settings_of(FOLDER / f"{name}.yaml")
    scales = model_options.layer_scales(models.build(found.model.arch, 10, **models.options(found.model)))
    assert len(scales) == 24
    assert all(torch.equal(scale, torch.full_like(scale, 1e-4)) for scale in scales)
