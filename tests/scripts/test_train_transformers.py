"""The transformer trainer through the command line, on small models and photos; interruption: test_resume.py."""

import pytest
import timm
import torch

from tests.support.betons import write_classed
from tests.support.scripts import forked, options
from tests.support.training import assert_whole_photos, log_of

# DeiT III in small: 3-Augment, repeated augmentation, BCE with Mixup, LAMB, moving average
DEIT3 = {
    "model.arch": "timm:test_vit",
    "model.img_size": 48,
    "model.drop_path": 0.1,
    "model.drop_path_constant": 1,
    "model.layer_scale": 1e-4,
    "data.num_workers": 2,
    "data.in_memory": 1,
    "data.resolution": 48,
    "data.train_stages": "rrc({res}, interpolation='bicubic')|flip|three_augment|jitter(0.3)|normalize",
    "lr.lr": 3e-3,
    "lr.warmup_epochs": 1,
    "training.batch_size": 64,
    "training.epochs": 3,
    "training.repeats": 3,
    "training.optimizer": "lamb",
    "training.loss": "bce",
    "training.bce_target_threshold": 0,
    "training.label_smoothing": 0,
    "training.mixup": 0.8,
    "training.cutmix": 1.0,
    "training.ema": 0.9,
    "validation.batch_size": 16,
    "validation.resolution": 48,
    "validation.lr_tta": 0,
}


@pytest.fixture(scope="module")
def small_betons(tmp_path_factory):
    """264 photos for training (repeated augmentation needs 256) and 41 for validation, at most 64 px."""
    return write_classed(tmp_path_factory.mktemp("small"), 64, train=264, val=41)


def train(betons, folder, **changes):
    data = {f"data.{split}_dataset": path for split, path in betons.items()}
    done = forked(
        "train_transformers.py", *options(DEIT3 | data, logging__folder=folder, logging__name="run", **changes)
    )
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def finished(small_betons, tmp_path_factory):
    """A finished run."""
    return train(small_betons, tmp_path_factory.mktemp("finished"))


def test_deit3_run_logs_model_and_moving_average(finished):
    lines = log_of(finished)
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    for line in lines:
        assert line["images"] == 256, "an epoch of repeated augmentation is as long as one without"
        assert_whole_photos(line, "top_1", "ema_top_1")
        assert 0 < line["train_loss"] < 2
    for name in ("final_weights.pt", "final_ema_weights.pt"):
        weights = torch.load(finished / name, weights_only=True)
        model = timm.create_model("test_vit", img_size=48, num_classes=10, init_values=1e-4)
        model.load_state_dict(weights)


def test_levit_learns_from_a_teacher_and_mesa_from_its_average(small_betons, tmp_path):
    common = {"training__epochs": 2, "training__repeats": 1, "model__layer_scale": "null", "model__drop_path": "null"}
    common |= {"model__drop_path_constant": 0, "training__optimizer": "adamw", "training__loss": "ce"}
    teacher = train(small_betons, tmp_path / "teacher", model__arch="timm:resnet10t", model__img_size="null",
                    mesa__weight=0.5, mesa__start=0, **common)  # fmt: skip
    assert len(log_of(teacher)) == 2
    student = train(
        small_betons, tmp_path / "student", model__arch="timm:levit_128s", model__img_size=64, data__resolution=64,
        model__distilled=1, distillation__mode="hard", distillation__teacher="timm:resnet10t",
        distillation__teacher_weights=teacher / "final_weights.pt", validation__resolution=64, training__clip=0.01,
        training__clip_mode="agc", lr__per_iteration=1, training__accumulate=2, **common,
    )  # fmt: skip
    assert len(log_of(student)) == 2
