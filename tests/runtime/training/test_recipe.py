"""The parts of the recipe against numbers worked out here: schedules, weight decay, BlurPool, configs."""

import math

import numpy as np
import pytest
import timm
import torch
import torchvision
import yaml
from torch import nn
from torch.nn import functional as F

import train_imagenet
from runtime.config import parse
from runtime.training import models, optim, schedules
from runtime.training.models.blurpool import BlurConv2d, apply_blurpool
from tests.support.scripts import ROOT

RECIPES = sorted((ROOT / "rn_configs").glob("*.yaml"))
# Epochs: (start_ramp, end_ramp, first epoch at 192 px), from ffcv-imagenet's files
RAMPS = {16: (11, 13, 12), 24: (17, 20, 19), 32: (23, 27, 25), 40: (29, 34, 32), 56: (41, 48, 45), 88: (65, 76, 71)}
NEEDED = ["--data.train_dataset=t", "--data.val_dataset=v", "--data.num_workers=2", "--data.in_memory=1"]


def settings_of(*argv):
    return parse(train_imagenet.declare(), [*NEEDED, "--logging.folder=f", *argv])


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_loads(path):
    settings = settings_of(f"--config-file={path}")
    for section, values in yaml.safe_load(path.read_text()).items():
        for name, value in values.items():
            if f"data.{name}" in ("data.num_workers", "data.in_memory"):
                continue  # the command line of this test has its own
            value_found = getattr(getattr(settings, section), name)
            if f"{section}.{name}" == "logging.folder":
                assert value_found == "f"
            else:
                assert value_found == value or math.isclose(float(value_found), float(value)), f"{section}.{name}"


@pytest.mark.parametrize("arch", ["rn18", "rn50"])
@pytest.mark.parametrize("epochs", RAMPS)
def test_the_reference_recipes_have_their_published_values(arch, epochs):
    s = settings_of(f"--config-file={ROOT}/rn_configs/{arch}_{epochs}_epochs.yaml")
    start, end, first_192 = RAMPS[epochs]
    assert (s.resolution.start_ramp, s.resolution.end_ramp) == (start, end)
    sides = [schedules.resolution(e, **vars(s.resolution)) for e in range(epochs)]
    assert sides == [160] * first_192 + [192] * (epochs - first_192)
    assert s.training.epochs == epochs
    assert s.training.label_smoothing == 0.1 and s.training.momentum == 0.9
    assert s.training.use_blurpool and s.validation.lr_tta and s.validation.resolution == 256
    expected = (1024, 0.5, 5e-5, 1) if arch == "rn18" else (512, 1.7, 1e-4, 8)
    assert (s.training.batch_size, s.lr.lr, s.training.weight_decay, s.dist.world_size) == expected
    assert bool(s.training.distributed) == (arch == "rn50")


def test_cyclic_learning_rate_rises_and_falls_linearly():
    def at(epoch):
        return schedules.cyclic_lr(epoch, 0.5, 2, 16)

    assert at(0) == pytest.approx(0.5e-4)
    assert at(1) == pytest.approx((0.5e-4 + 0.5) / 2)
    assert at(2) == 0.5
    assert at(9) == pytest.approx(0.25)
    assert at(16) == 0
    lrs = schedules.iteration_lrs(at, 1, 100)
    assert len(lrs) == 100
    assert lrs[0] == pytest.approx(at(1))
    assert lrs[50] == pytest.approx((at(1) + at(2)) / 2)
    assert np.diff(lrs) == pytest.approx((at(2) - at(1)) / 100)


def test_step_learning_rate():
    rates = [schedules.step_lr(e, 1.0, 0.1, 30, 90) for e in (0, 29, 30, 59, 60, 89, 90)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0])


@pytest.mark.parametrize(
    "model",
    [torchvision.models.resnet50(), timm.create_model("vit_tiny_patch16_224"), timm.create_model("convnext_atto")],
    ids=["resnet50", "vit", "convnext"],
)
def test_norms_and_biases_have_no_weight_decay_by_default(model):
    norms = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)
    expected = {n for n, p in model.named_parameters() if n.endswith("bias") or p.ndim == 1}
    for name, module in model.named_modules():
        if isinstance(module, norms):
            expected |= {f"{name}.{n}" for n, _ in module.named_parameters()}
    names = {id(p): n for n, p in model.named_parameters()}
    if hasattr(model, "no_weight_decay"):
        # What timm's model itself names, of what it has: position embeddings, tokens
        expected |= set(model.no_weight_decay()) & set(names.values())
    decayed, spared = optim.parameter_groups(model, 0.1, decay_norms=False)
    assert {names[id(p)] for p in spared["params"]} == expected
    assert spared["weight_decay"] == 0 and decayed["weight_decay"] == 0.1
    assert len(decayed["params"]) + len(spared["params"]) == len(names)
    (everything,) = optim.parameter_groups(model, 0.1, decay_norms=True)
    assert len(everything["params"]) == len(names) and everything["weight_decay"] == 0.1


def test_blurpool_blurs_six_convolutions_and_keeps_the_names():
    for arch in ("resnet18", "resnet50"):
        plain, blurred = torchvision.models.get_model(arch), torchvision.models.get_model(arch)
        apply_blurpool(blurred)
        assert sum(isinstance(m, BlurConv2d) for m in blurred.modules()) == 6
        assert list(blurred.state_dict()) == list(plain.state_dict())


def test_blurpool_is_a_blur_and_then_the_convolution():
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 8, 3, stride=2, padding=1)
    x = torch.randn(2, 16, 9, 9)
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    blurred = torch.stack([F.conv2d(x[:, c : c + 1], kernel[None, None], padding=1)[:, 0] for c in range(16)], 1)
    expected = conv(blurred)
    torch.testing.assert_close(BlurConv2d.of(conv)(x), expected)


def test_models_come_from_torchvision_and_timm():
    assert models.build("resnet18", 7).fc.out_features == 7
    assert models.build("timm:resnet10t", 7).num_classes == 7
