"""Every file under vit_configs/ against the strict parser, and its values against the tables they come from."""

import math

import pytest
import yaml

from beton.stages.parse import parse
from tests.support.configs import FOLDER, each_file, settings_of

# What follows the crop: the FFCV document, 3-Augment, RandAugment without and with erasing
AUGMENTATIONS = {
    ("flip", "normalize"),
    ("flip", "three_augment", "jitter", "normalize"),
    ("flip", "three_augment", "normalize"),  # clothing: too few epochs for more
    ("flip", "randaugment", "normalize"),
    ("flip", "randaugment", "normalize", "erase"),
}
VALUES = {
    "flip": {"p": 0.5},
    "randaugment": {"config": "rand-m9-mstd0.5-inc1"},
    "jitter": {"strengths": (0.3, 0.3, 0.3)},
    "erase": {"p": 0.25, "mode": "pixel"},
}
INTERPOLATED = ("rrc", "src", "randaugment")  # timm's RandAugment interpolates as the crop does
ARCHS = {"s": "small_patch16", "b": "base_patch16", "l": "large_patch16", "h": "huge_patch14"}

# The 18 commands of the DeiT III document:
# batch on a GPU x GPUs, side, learning rate, epochs, weight decay, drop path, optimizer, loss, mixup, repeats
DEIT_III = {
    "s_1k_224": (256, 8, 224, 4e-3, 800, 0.05, 0.05, "lamb", "bce", 0.8, 3),
    "b_1k_192": (256, 8, 192, 3e-3, 800, 0.05, 0.2, "lamb", "bce", 0.8, 3),
    "l_1k_192": (64, 32, 192, 3e-3, 800, 0.05, 0.45, "lamb", "bce", 0.8, 3),
    "h_1k_160": (64, 32, 160, 3e-3, 800, 0.05, 0.6, "lamb", "bce", 0.8, 3),
    "b_1k_224_finetune": (64, 8, 224, 1e-5, 20, 0.1, 0.2, "adamw", "ce", 0.8, 1),
    "l_1k_224_finetune": (64, 8, 224, 1e-5, 20, 0.1, 0.45, "adamw", "ce", 0.8, 1),
    "h_1k_224_finetune": (32, 16, 224, 1e-5, 20, 0.1, 0.55, "adamw", "ce", 0.8, 1),
    "s_1k_384_finetune": (64, 8, 384, 1e-5, 20, 0.1, 0.0, "adamw", "ce", 0.8, 1),
    "b_1k_384_finetune": (32, 16, 384, 1e-5, 20, 0.1, 0.15, "adamw", "ce", 0.8, 1),
    "l_1k_384_finetune": (16, 32, 384, 1e-5, 20, 0.1, 0.4, "adamw", "ce", 0.8, 1),
    "s_21k_224": (128, 16, 224, 1e-3, 240, 0.02, 0.05, "lamb", "ce", 0, 1),
    "b_21k_224": (64, 32, 224, 1e-3, 240, 0.02, 0.1, "lamb", "ce", 0, 1),
    "l_21k_224": (64, 32, 224, 1e-3, 240, 0.02, 0.3, "lamb", "ce", 0, 1),
    "h_21k_128": (64, 32, 128, 1e-3, 90, 0.02, 0.5, "lamb", "ce", 0, 1),
    "s_21k_to_1k_224": (128, 16, 224, 3e-4, 50, 0.02, 0.05, "lamb", "ce", 0, 1),
    "b_21k_to_1k_224": (64, 32, 224, 3e-4, 50, 0.02, 0.15, "lamb", "ce", 0, 1),
    "l_21k_to_1k_224": (64, 32, 224, 3e-4, 50, 0.02, 0.4, "lamb", "ce", 0, 1),
    "h_21k_to_1k_224": (64, 32, 224, 3e-4, 50, 0.02, 0.45, "lamb", "ce", 0, 1),
}
# FasterViT 0 to 6: weight of MESA, weight decay, drop path, warm-up, start of MESA, optimizer
FASTER_VIT = [
    (0.1, 0.005, 0.2, 20, 0.25, "adamw"),
    (0.2, 0.005, 0.2, 20, 0.25, "adamw"),
    (0.5, 0.005, 0.2, 20, 0.25, "adamw"),
    (0.5, 0.005, 0.3, 35, 0.30, "adamw"),
    (5.0, 0.12, 0.3, 20, 0.25, "lamb"),
    (5.0, 0.12, 0.3, 20, 0.25, "lamb"),
    (5.0, 0.12, 0.5, 20, 0.25, "lamb"),
]


def stages_of(text):
    """The stages of a text, each with its name; for 64 px and a crop ratio of 0.5, which no config has."""
    parsed = parse(text.replace("{res}", "64").replace("{ratio}", "0.5"))
    return [(type(stage).__module__.removeprefix("beton.stages."), stage) for stage in parsed]


def test_there_is_a_file_for_every_model_and_command():
    assert {p.stem for p in FOLDER.glob("deit3/*")} == set(DEIT_III)
    assert {p.name for p in FOLDER.glob("fastervit/*")} == {f"faster_vit_{v}.yaml" for v in range(7)}
    sizes = ("128s", "128", "192", "256", "384")
    assert {p.stem for p in FOLDER.glob("*.yaml")} == {
        "vit_b_16",
        "levit_128s",
        *(f"levit_{s}_1000_epochs" for s in sizes),
    }
    assert {p.stem for p in FOLDER.glob("patchconvnet/*")} == {"s60", "s120", "b60", "b120"}
    counts = {p.name: len(list(p.iterdir())) for p in FOLDER.iterdir() if p.is_dir()}
    assert counts == {
        "cait": 8, "clothing": 8, "deit": 6, "deit3": 18,
        "fastervit": 7, "patchconvnet": 4, "resmlp": 3, "three_things": 3,
    }  # fmt: skip


@each_file
def test_every_config_loads(path):
    text = path.read_text()
    head = [line for line in text.splitlines() if line.startswith("#")]
    assert 1 <= len(head) <= 4 and text.startswith("\n".join(head))
    found = settings_of(path)
    for section, values in yaml.safe_load(text).items():
        for name, value in values.items():
            key = f"{section}.{name}"
            got = found.flat()[key]
            assert got == value or math.isclose(float(got), float(value)), key
            assert found.origin[key] == str(path), key

    side = found.data.resolution
    assert found.validation.resolution == side and found.model.img_size in (None, side)
    assert not found.validation.lr_tta or path.parent.name == "clothing"
    assert found.logging.folder == "runs" and found.data.in_memory
    assert found.data.num_workers == (2 if path.parent.name == "clothing" else 12)
    assert bool(found.training.distributed) == (found.dist.world_size > 1)
    assert found.lr.warmup_epochs < found.training.epochs and found.lr.warmup_lr < found.lr.lr
    if found.lr.schedule == "cosine":
        assert found.lr.min_lr <= found.lr.lr
    if found.training.mixup or found.training.cutmix:
        assert found.training.batch_size % 2 == 0
    if found.training.loss == "bce":  # smoothed targets are all above the threshold of 0
        assert found.training.bce_target_threshold == 0 and found.training.label_smoothing == 0
    assert bool(found.model.distilled) == (found.distillation.mode != "none")
    assert ("distilled" in found.model.arch or "levit" in found.model.arch) or not found.model.distilled


@each_file
def test_every_stage_is_of_its_recipe(path):
    data = settings_of(path).data
    train, validation = stages_of(data.train_stages), stages_of(data.val_stages)
    names = tuple(name for name, _ in train)
    # erase works on normalised numbers; timm has no jitter beside RandAugment
    assert names[0] in ("rrc", "src") and names[1:] in AUGMENTATIONS
    assert [name for name, _ in validation] == ["center", "normalize"]
    crop, center = train[0][1], validation[0][1]
    assert crop.height == crop.width == center.height == center.width == 64 and center.ratio == 0.5
    if names[0] == "rrc" and path.parent.name != "clothing":
        assert crop.scale == (0.08, 1)
    expected = "area" if len(names) == 3 else "random" if "faster_vit" in path.stem else "bicubic"
    assert center.interpolation == ("area" if expected == "area" else "bicubic")
    for name, stage in train:
        if name in INTERPOLATED:
            assert stage.interpolation == expected
        for attribute, value in VALUES.get(name, {}).items():
            assert getattr(stage, attribute) == value, name


@pytest.mark.parametrize("name", DEIT_III)
def test_deit_3_has_the_values_of_its_command(name):
    found = settings_of(FOLDER / "deit3" / f"{name}.yaml")
    training, model = found.training, found.model
    got = (
        training.batch_size, found.dist.world_size, found.data.resolution, found.lr.lr, training.epochs,
        training.weight_decay, model.drop_path, training.optimizer, training.loss, training.mixup, training.repeats,
    )  # fmt: skip
    assert got == DEIT_III[name]
    size, side = name[0], found.data.resolution
    assert model.arch == f"timm:deit3_{ARCHS[size]}_{384 if side == 384 else 224}" and model.img_size == side
    assert model.drop_path_constant and model.layer_scale == 1e-4
    total = training.batch_size * found.dist.world_size
    assert total == (512 if "finetune" in name else 2048) and training.accumulate == 1
    # --unscale-lr, warm-up of 5 epochs from 1e-6, DeiT's late schedule
    assert (found.lr.base_batch, found.lr.warmup_epochs, found.lr.warmup_lr, found.lr.min_lr) == (None, 5, 1e-6, 1e-5)
    assert found.lr.schedule == "cosine" and found.lr.one_epoch_late and not found.lr.per_iteration
    assert training.label_smoothing == (0 if training.loss == "bce" else 0.1)
    assert training.cutmix == 1 and training.mix_probability == 1 and training.mix_switch == 0.5
    assert training.clip is None and training.eps == 1e-8
    assert training.ema == 0.99996 and not training.ema_evaluate
    assert found.validation.crop_ratio == 1
    crop, augmentation = ("src", "three_augment") if "21k" in name else ("rrc", "three_augment")
    if "finetune" in name:
        augmentation = "randaugment"
    names = [stage for stage, _ in stages_of(found.data.train_stages)]
    assert names[0] == crop and augmentation in names and "erase" not in names


@pytest.mark.parametrize("version", range(7))
def test_faster_vit_has_the_values_of_its_command(version):
    found = settings_of(FOLDER / "fastervit" / f"faster_vit_{version}.yaml")
    training, lr, mesa = found.training, found.lr, found.mesa
    got = (
        mesa.weight, training.weight_decay, found.model.drop_path, lr.warmup_epochs, mesa.start, training.optimizer
    )  # fmt: skip
    assert got == FASTER_VIT[version]
    assert found.model.arch == f"timm:faster_vit_{version}_224" and not found.model.drop_path_constant
    assert training.batch_size * found.dist.world_size == 4096
    assert (lr.lr, lr.min_lr, lr.warmup_lr, lr.base_batch, bool(lr.per_iteration)) == (5e-3, 5e-6, 1e-6, None, True)
    assert (training.epochs, lr.cooldown_epochs, training.repeats) == (310, 10, 1)
    assert (training.clip, training.clip_mode, training.eps) == (5.0, "norm", 1e-8)
    assert (training.loss, training.label_smoothing, training.mixup, training.cutmix) == ("ce", 0.1, 0.8, 1.0)
    assert training.ema == 0.9998 and training.ema_evaluate
    assert (mesa.temperature, mesa.factor) == (3, 50)


@pytest.mark.parametrize(
    ("pattern", "total", "scaled_lr", "epochs", "weight_decay", "ratio"),
    [
        ("levit_*_1000_epochs.yaml", 2048, 2e-3, 1000, 0.025, 0.875),
        ("deit/*.yaml", 1024, 1e-3, 300, 0.05, 0.875),
        ("three_things/*.yaml", 1024, 1e-3, 300, 0.05, 0.875),
        ("cait/*_224.yaml", 1024, 1e-3, 400, 0.05, 1.0),
        ("cait/*_finetune.yaml", 512, 5e-6, 30, 1e-8, 1.0),
        ("resmlp/*.yaml", 2048, 5e-3, 400, 0.2, 0.9),
        ("patchconvnet/*.yaml", 2048, 3e-3, 300, 0.05, 0.875),
    ],
)
def test_the_families_of_deit_have_its_recipe(pattern, total, scaled_lr, epochs, weight_decay, ratio):
    for path in FOLDER.glob(pattern):
        found = settings_of(path)
        training, batch = found.training, found.training.batch_size * found.dist.world_size
        assert batch == total
        assert found.lr.lr * batch / (found.lr.base_batch or batch) == pytest.approx(scaled_lr)
        assert (training.epochs, training.weight_decay, found.validation.crop_ratio) == (epochs, weight_decay, ratio)
        assert (training.repeats, training.loss, training.label_smoothing) == (3, "ce", 0.1)
        assert (training.mixup, training.cutmix, training.ema) == (0.8, 1.0, 0.99996)
        assert found.lr.one_epoch_late and found.lr.warmup_epochs == 5
        assert training.optimizer == ("lamb" if path.parent.name in ("resmlp", "patchconvnet") else "adamw")
        if "levit" in path.stem:
            assert (training.clip, training.clip_mode, training.precision) == (0.01, "agc", "none")
            assert found.model.drop_path == (0.1 if "384" in path.stem else 0)
        if found.model.distilled:
            assert (found.distillation.mode, found.distillation.alpha) == ("hard", 0.5)


@pytest.mark.parametrize("name", ["vit_b_16", "levit_128s"])
def test_the_ffcv_document(name):
    found = settings_of(FOLDER / f"{name}.yaml")
    training = found.training
    assert (training.optimizer, found.lr.lr, found.lr.schedule, found.lr.warmup_epochs) == ("adam", 1e-5, "constant", 0)
    assert (training.batch_size, training.epochs, training.weight_decay, training.label_smoothing) == (64, 300, 0, 0)
    assert training.precision == "fp16" and training.mixup == training.cutmix == 0
    assert found.data.train_stages == "rrc({res})|flip|normalize"
