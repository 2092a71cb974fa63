"""Values that are good one by one and not together, or not with these data, this model, this machine."""

import shutil
import socket
from contextlib import nullcontext

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch

from beton.errors import UserError
from beton.format import card as cards
from beton.loading.buffers import BufferPool
from runtime.training import run, run_folder
from runtime.training.models import input_size
from runtime.training.schedules import cyclic_lr
from tests.support.nonsense import AGAINST, IMAGENET, PROFILE, TRANSFORMERS, WRITE
from tests.support.scripts import here, wrong

pytestmark = pytest.mark.usefixtures("no_processes", "nothing_is_left")
VIT = "timm:vit_tiny_patch16_224"  # of one size, which timm:test_vit is not
TOGETHER = [
    (IMAGENET, {"training__batch_size": 1000}, ["120 samples", "too few", "1000"]),
    (IMAGENET, {"training__batch_size": 60, "data__loader": "ffcv", "data__verify": 1}, ["data.verify=0"]),
    (IMAGENET, {"training__batch_size": 1}, ["one photo in a batch", "training.batch_size=2"]),
    (IMAGENET, {"training__repeats": 3, "training__batch_size": 65536}, ["too few"]),
    (IMAGENET, {"resolution__min_res": 64}, ["min_res", "max_res"]),
    (IMAGENET, {"resolution__start_ramp": 5, "resolution__end_ramp": 2}, ["start_ramp", "end_ramp"]),
    (IMAGENET, {"model__arch": "inception_v3", "training__batch_size": 60}, ["inception_v3", "32 px"]),
    (IMAGENET, {"data__gpu": 1}, ["GPU 1"]),
    (IMAGENET, {"data__loader": "torch"}, ["val.beton", "folder"]),
    (IMAGENET, {"data__loader": "torch", "data__on_error": "skip"}, []),
    (IMAGENET, {"data__loader": "ffcv", "data__on_error": "skip"}, ["data.on_error"]),
    (IMAGENET, {"training__distributed": 1, "dist__world_size": 3}, ["dist.world_size=3", "core"]),
    (IMAGENET, {"training__distributed": 1, "dist__world_size": 1024}, ["dist.world_size=1024"]),
    (IMAGENET, {"training__optimizer": "nesterov", "training__momentum": 0}, ["nesterov", "training.momentum=0"]),
    (IMAGENET, {"training__optimizer": "fusedlamb"}, ["fusedlamb", "CUDA"]),
    (IMAGENET, {"training__resume": "auto", "logging__name": None}, ["logging.name"]),
    (IMAGENET, {"training__resume": "auto", "training__eval_only": 1}, ["checkpoint.pt"]),
    (IMAGENET, {"model__pretrained": 1}, ["weights of timm:test_resnet"]),
    (IMAGENET, {"model__arch": "timm:patchconvnet_s60", "model__pretrained": 1}, ["timm:patchconvnet_s60"]),
    (TRANSFORMERS, {"model__arch": VIT, "data__resolution": 48}, [VIT, "48 px", "model.img_size"]),
    (TRANSFORMERS, {"model__arch": VIT, "model__img_size": None}, [VIT, "32 px"]),
    (TRANSFORMERS, {"model__arch": VIT, "validation__resolution": 64}, [VIT, "64 px"]),
    (TRANSFORMERS, {"model__arch": VIT, "validation__resolution": 64, "training__eval_only": 1}, [VIT, "64 px"]),
    (TRANSFORMERS, {"model__arch": "timm:vit_small_patch32_224", "model__img_size": 16}, ["model.img_size"]),
    (TRANSFORMERS, {"model__arch": "vit_b_16", "model__img_size": 33}, ["vit_b_16", "model.img_size=33"]),
    (TRANSFORMERS, {"model__arch": "timm:test_resnet"}, ["test_resnet", "model.img_size"]),
    (TRANSFORMERS, {"model__drop_path_constant": 1}, ["model.drop_path"]),
    (TRANSFORMERS, {"model__distilled": 1}, ["model.distilled"]),
    (TRANSFORMERS, {"mesa__weight": 1}, ["training.ema"]),
    (TRANSFORMERS, {"training__mixup": 1, "training__batch_size": 31}, ["batch_size=31", "even"]),
    (TRANSFORMERS, {"training__accumulate": 60, "training__batch_size": 121}, ["too few"]),
    (PROFILE, {"profile__protocol": "load,nonsense"}, ["nonsense", "train or cached"]),
    (PROFILE, {"profile__encodings": "original,resized", "profile__dataset": None}, ["profile.dataset"]),
    (PROFILE, {"profile__workers_sweep": "1,0"}, ["1,0", "whole numbers"]),
    (PROFILE, {"profile__loaders": "torch", "profile__photos": None}, ["nothing to measure", "profile.photos"]),
    (PROFILE, {"profile__protocol": "train", "profile__val_dataset": None}, ["profile.val_dataset"]),
    (PROFILE, {"profile__protocol": "train", "profile__trainer": "train_transformers.py",
               "profile__config": "rn_configs/demo.yaml"}, ["rn_configs/demo.yaml", "unknown key"]),
    (WRITE, {"cfg__subset": 0}, ["cfg.subset"]),
    (WRITE, {"cfg__data_dir": None}, ["cfg.data_dir"]),
    (WRITE, {"cfg__dataset": "generated", "cfg__subset": 0}, ["0 photos"]),
    (WRITE, {"cfg__dataset": "cifar"}, ["cifar-10-batches-py"]),
    (AGAINST, {"bench__only": "jpg,nonsense"}, ["nonsense", "jpg_uint8"]),
]  # fmt: skip


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("script, changes, words", TOGETHER, ids=lambda value: str(value)[:40])
def test_values_that_do_not_go_together(command, script, changes, words):
    assert not wrong([(script, command(script, **changes), words)])


def test_two_data_sets_of_other_classes(command, numbered):
    words = ["10 classes", "has 45", "all.beton"]
    assert not wrong((s, command(s, data__val_dataset=numbered["beton"]), words) for s in (IMAGENET, TRANSFORMERS))


def test_two_data_sets_whose_classes_have_other_names(command, betons, tmp_path):
    """The same number of them: each label would mean another thing. A file without names fits any."""
    path = tmp_path / "val.beton"
    shutil.copy(betons["val"], path)
    card = cards.read_card(cards.card_path(betons["val"]))
    card["classes"][3] = "something else"
    cards.card_path(path).write_text(cards.card_text(card))
    words = ["class 3 is ", "'something else'", "val.beton"]
    assert not wrong((s, command(s, data__val_dataset=path), words) for s in (IMAGENET, TRANSFORMERS))
    card["classes"] = [str(number) for number in range(10)]
    cards.card_path(path).write_text(cards.card_text(card))
    changes = {"data__val_dataset": path, "training__epochs": 1, "logging__folder": tmp_path}
    assert here(IMAGENET, *command(IMAGENET, **changes)).returncode == 0


def test_a_teacher_of_another_size(command, place):
    weights = place / "teacher.pt"
    torch.save(timm.create_model(VIT.removeprefix("timm:"), num_classes=10).state_dict(), weights)
    teacher = {"distillation__mode": "soft", "distillation__teacher": VIT}
    argv = command(TRANSFORMERS, **teacher, distillation__teacher_weights=weights)
    assert not wrong([(TRANSFORMERS, argv, [VIT, "32 px"])])


def test_a_port_that_is_taken(command):
    with socket.socket() as other:
        other.bind(("localhost", 0))
        other.listen()
        port = other.getsockname()[1]
        ranks = {"training__distributed": 1, "dist__world_size": 2, "dist__port": port}
        assert not wrong([(IMAGENET, command(IMAGENET, **ranks), [f"localhost:{port}", "dist.port"])])


@pytest.mark.parametrize("error", [
    MemoryError("Unable to allocate 12.0 TiB"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nOf the allocated memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:119] . DefaultCPUAllocator: can't allocate memory"),
])  # fmt: skip
def test_memory_that_there_is_not(command, monkeypatch, place, error):
    def take(self):
        raise error

    monkeypatch.setattr(BufferPool, "take", take)
    argv = [*command(IMAGENET, training__eval_only=1)]
    assert not wrong([(IMAGENET, argv, ["memory", "batch_size"])])


def test_a_bug_is_no_user_error(command, monkeypatch):
    def run_recipe(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(run, "run_recipe", run_recipe)
    end = here(IMAGENET, *command(IMAGENET))
    assert (end.returncode, "RuntimeError('a bug')" in end.stderr) == (1, True)


class Fixed(torch.nn.Module):
    """Takes images of 48 px, and has a bug if there are 3."""

    def __init__(self, bug: bool = False):
        super().__init__()
        self.layer, self.bug = torch.nn.Linear(3, 10), bug

    def forward(self, images):
        if self.bug:
            raise ValueError("a bug")
        assert images.shape[-1] == 48, "48 only"  # as timm does it
        return self.layer(images.mean((2, 3)))


def test_a_model_s_bug_is_not_taken_for_a_wrong_size():
    model = Fixed()
    model.image_size = 48
    input_size.check("fixed", model, [48], nullcontext())
    with pytest.raises(UserError, match="fixed cannot take images of 32 px"):
        input_size.check("fixed", model, [48, 32], nullcontext())
    with pytest.raises(ValueError, match="a bug"):
        input_size.check("fixed", Fixed(bug=True), [32], nullcontext())
    assert model.training


def test_a_full_disk(command, place):
    run = place / "work/taken"
    (run / ".params.json.partial").symlink_to("/dev/full")
    argv = command(IMAGENET, logging__name="taken", training__resume="auto")
    assert not wrong([(IMAGENET, argv, ["params.json", "No space left", "logging.folder"])])
    (run / ".params.json.partial").unlink(missing_ok=True)
    (place / "full").mkdir()
    (place / "full/log.jsonl").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"log.jsonl \(No space left"):
        run_folder.RunFolder(place / "full").log({"epoch": 1})


def test_a_schedule_that_never_comes_down_is_reported(command, place, capsys):
    wrong_data = {"data__val_dataset": place}  # so that it does not train
    out = here(IMAGENET, *command(IMAGENET, lr__lr_peak_epoch=2, **wrong_data)).stdout
    assert "lr.lr_peak_epoch=2 is not before training.epochs=1" in out
    assert "only rises" not in here(IMAGENET, *command(IMAGENET, lr__lr_peak_epoch=0.5, **wrong_data)).stdout
    out = here(TRANSFORMERS, *command(TRANSFORMERS, lr__warmup_epochs=1, **wrong_data)).stdout
    assert "lr.warmup_epochs=1 does not end before training.epochs=1" in out
    assert np.allclose([cyclic_lr(e, 1.0, 4, 2) for e in (0, 1, 2)], [1e-4, 0.250075, 0.50005])
    assert cyclic_lr(2, 1.0, 2, 2) == 1.0


def test_the_commands_that_look_into_a_beton(place, betons, photo_folder):
    beton, photos = str(betons["val"]), str(photo_folder / "val")
    wrong_files = ["", "missing", "/dev/null", "x" * 10_000]
    wrong_files += [str(place), str(place / "file.yaml"), str(place / "zeros.pt")]
    cases = [[name] for name in ("check", "info", "preview", "compare")]
    for name in ("check", "info", "preview"):
        cases += [[name, file] for file in wrong_files]
        cases += [[name, beton, "a.png", "b"], [name, "--cfg.split=train", "x", "y"]]
    cases += [["compare", file, photos] for file in wrong_files] + [["compare", beton, file] for file in wrong_files]
    cases += [["compare", beton], ["compare", beton, photos, "x"], ["check", beton, "--cfg.split=train"]]
    outs = ["", ".", "a.jpg", str(place), str(place / "file.yaml/a.png"), "/proc/a.png", f"{'x' * 10_000}.png"]
    cases += [["preview", beton, out] for out in outs if out]
    cases += [["--cfg.split=val", "check", beton], ["Check", beton], ["chek", beton]]
    assert not wrong((WRITE, argv, []) for argv in cases)
