"""Values that are good one by one and not together, or not with these data, this model, this machine."""

import shutil
import socket
import subprocess
from types import SimpleNamespace

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
from nonsense import end_of, wrong
from test_nonsense_uses import (  # noqa: F401  the fixtures
    AGAINST,
    IMAGENET,
    PROFILE,
    TRANSFORMERS,
    WRITE,
    command,
    no_processes,
    nothing_is_left,
    place,
)

from pipelines import beton
from pipelines.errors import UserError
from pipelines.slots import SlotPool
from runtime import begin, log

VIT = "timm:vit_tiny_patch16_224"  # of one size, which timm:test_vit is not
TOGETHER = [
    (IMAGENET, {"training__batch_size": 1000}, ["120 samples", "too few", "1000"]),
    (IMAGENET, {"training__batch_size": 60, "data__loader": "ffcv_stock", "data__verify": 1}, ["data.verify=0"]),
    (IMAGENET, {"training__batch_size": 1}, ["one photo in a batch", "training.batch_size=2"]),
    (IMAGENET, {"training__repeats": 3, "training__batch_size": 65536}, ["too few"]),
    (IMAGENET, {"resolution__min_res": 64}, ["min_res", "max_res"]),
    (IMAGENET, {"resolution__start_ramp": 5, "resolution__end_ramp": 2}, ["start_ramp", "end_ramp"]),
    (IMAGENET, {"model__arch": "inception_v3", "training__batch_size": 60}, ["inception_v3", "32 px"]),
    (IMAGENET, {"data__gpu": 1}, ["GPU 1"]),
    (IMAGENET, {"data__loader": "torch"}, ["val.beton", "folder"]),
    (IMAGENET, {"data__loader": "torch", "data__on_error": "skip"}, []),
    (IMAGENET, {"data__loader": "ffcv_stock", "data__on_error": "skip"}, ["data.on_error"]),
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
    (PROFILE, {"profile__protocol": "load,nonsense"}, ["nonsense", "load or train"]),
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


@pytest.fixture
def told(place, betons, photo_folder):  # noqa: F811
    """The command line of a script that works, with changes."""
    return lambda script, **changes: command(script, place, betons, photo_folder, **changes)


@pytest.mark.parametrize("script, changes, words", TOGETHER, ids=lambda value: str(value)[:40])
def test_values_that_do_not_go_together(told, script, changes, words):
    assert not wrong([(script, told(script, **changes), words)])


def test_two_data_sets_of_other_classes(told, numbered):
    words = ["10 classes", "has 45", "all.beton"]
    assert not wrong((s, told(s, data__val_dataset=numbered["beton"]), words) for s in (IMAGENET, TRANSFORMERS))


def test_two_data_sets_whose_classes_have_other_names(told, betons, tmp_path):
    """The same number of them: each label would mean another thing. A file without names fits any."""
    path = tmp_path / "val.beton"
    shutil.copy(betons["val"], path)
    card = beton.read_card(betons["val"])
    card["classes"][3] = "something else"
    beton.card_path(path).write_text(beton.card_text(card))
    words = ["class 3 is ", "'something else'", "val.beton"]
    assert not wrong((s, told(s, data__val_dataset=path), words) for s in (IMAGENET, TRANSFORMERS))
    card["classes"] = [str(number) for number in range(10)]
    beton.card_path(path).write_text(beton.card_text(card))
    changes = {"data__val_dataset": path, "training__epochs": 1, "logging__folder": tmp_path}
    assert end_of(IMAGENET, *told(IMAGENET, **changes)).status == 0


def test_a_teacher_of_another_size(told, place):  # noqa: F811
    weights = place / "teacher.pt"
    torch.save(timm.create_model(VIT.removeprefix("timm:"), num_classes=10).state_dict(), weights)
    teacher = {"distillation__mode": "soft", "distillation__teacher": VIT}
    argv = told(TRANSFORMERS, **teacher, distillation__teacher_weights=weights)
    assert not wrong([(TRANSFORMERS, argv, [VIT, "32 px"])])


def test_a_port_that_is_taken(told):
    with socket.socket() as other:
        other.bind(("localhost", 0))
        other.listen()
        port = other.getsockname()[1]
        ranks = {"training__distributed": 1, "dist__world_size": 2, "dist__port": port}
        assert not wrong([(IMAGENET, told(IMAGENET, **ranks), [f"localhost:{port}", "dist.port"])])


@pytest.mark.parametrize("error", [
    MemoryError("Unable to allocate 12.0 TiB"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nOf the allocated memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:119] . DefaultCPUAllocator: can't allocate memory"),
])  # fmt: skip
def test_memory_that_there_is_not(told, monkeypatch, place, error):  # noqa: F811
    def take(self):
        raise error

    monkeypatch.setattr(SlotPool, "take", take)
    argv = [*told(IMAGENET, training__eval_only=1)]
    assert not wrong([(IMAGENET, argv, ["memory", "batch_size"])])


def test_a_bug_is_no_user_error(told, monkeypatch):
    def run(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(begin, "run", run)
    end = end_of(IMAGENET, *told(IMAGENET))
    assert (end.status, "RuntimeError('a bug')" in end.err) == (1, True)


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
    from contextlib import nullcontext

    from runtime.models import sides

    model = Fixed()
    model.image_size = 48
    sides.check("fixed", model, [48], nullcontext())
    with pytest.raises(UserError, match="fixed cannot take images of 32 px"):
        sides.check("fixed", model, [48, 32], nullcontext())
    with pytest.raises(ValueError, match="a bug"):
        sides.check("fixed", Fixed(bug=True), [32], nullcontext())
    assert model.training


def test_a_full_disk(told, place):  # noqa: F811
    run = place / "work/taken"
    (run / ".params.json.partial").symlink_to("/dev/full")
    argv = told(IMAGENET, logging__name="taken", training__resume="auto")
    assert not wrong([(IMAGENET, argv, ["params.json", "No space left", "logging.folder"])])
    (run / ".params.json.partial").unlink(missing_ok=True)
    (place / "full").mkdir()
    (place / "full/log.jsonl").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"log.jsonl \(No space left"):
        log.RunFolder(place / "full").log({"epoch": 1})


def test_a_schedule_that_never_comes_down_is_told(told, place, capsys):  # noqa: F811
    wrong_data = {"data__val_dataset": place}  # so that it does not train
    out = end_of(IMAGENET, *told(IMAGENET, lr__lr_peak_epoch=2, **wrong_data)).out
    assert "lr.lr_peak_epoch=2 is not before training.epochs=1" in out
    assert "only rises" not in end_of(IMAGENET, *told(IMAGENET, lr__lr_peak_epoch=0.5, **wrong_data)).out
    out = end_of(TRANSFORMERS, *told(TRANSFORMERS, lr__warmup_epochs=1, **wrong_data)).out
    assert "lr.warmup_epochs=1 does not end before training.epochs=1" in out
    from runtime.schedules import cyclic_lr

    assert np.allclose([cyclic_lr(e, 1.0, 4, 2) for e in (0, 1, 2)], [1e-4, 0.250075, 0.50005])
    assert cyclic_lr(2, 1.0, 2, 2) == 1.0


def test_what_a_loader_s_process_says_is_the_error(told, monkeypatch, betons):
    said = "warning: sample 3 is damaged; it is left out\nerror: there is no GPU; buy one\n"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=2, stdout="", stderr=said))
    end = end_of(PROFILE, *told(PROFILE))
    assert end.status == 2
    assert end.err.splitlines() == [said.splitlines()[0], "error: loader 'ffcv': there is no GPU; buy one"]


def test_the_commands_that_look_into_a_beton(place, betons, photo_folder):  # noqa: F811
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
