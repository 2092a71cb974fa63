"""For command lines of nonsense: files that are of no use, and command lines that work but for what is changed."""

import os
import shutil
import subprocess

import pytest
import torch

from tests.support.nonsense import (
    AGAINST,
    CACHED,
    CALLABLES,
    CEILING,
    CLOCK_COST,
    FFCV_API,
    FORMATS,
    GPU,
    IMAGENET,
    MODES,
    PLAN_CHECK,
    PROFILE,
    QUASI,
    SCALING,
    SERIAL,
    SOAK,
    TRANSFORMERS,
    VIEWS,
    VIT_LEVIT,
    WRITE,
)
from tests.support.scripts import options


@pytest.fixture(scope="session")
def place(tmp_path_factory, betons, photo_folder):
    """A folder of files and folders that are of no use; `work` in it is for what is written."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "empty").mkdir()
    (folder / "empty_classes" / "a").mkdir(parents=True)
    (folder / "work" / "taken").mkdir(parents=True)
    (folder / "file.yaml").write_text("training: {epochs: 3}\n")
    (folder / "unknown.yaml").write_text("training: {epohcs: 3}\n")
    (folder / "wrong.yaml").write_text("training: {epochs: many}\n")
    (folder / "loop").symlink_to(folder / "loop")
    torch.save({"weights": torch.zeros(3)}, folder / "foreign.pt")
    torch.save({"state_dict": {"a": torch.zeros(3)}, "epoch": 3}, folder / "timm.pt")
    torch.save({"model": torch.zeros(3)}, folder / "tensor.pt")
    torch.save({"model": 3, "optimizer": 4, "version": 2}, folder / "numbers.pt")
    torch.save([torch.zeros(3)], folder / "list.pt")
    torch.save(torch.nn.Linear(2, 2), folder / "module.pt")
    (folder / "zeros.pt").write_bytes(bytes(100_000))
    (folder / "empty.pt").touch()
    for name, log in (("no_log", None), ("no_epoch", "{}\n"), ("not_json", "abc\n")):
        (folder / name).mkdir()
        (folder / name / "params.json").write_text("{}")
        if log:
            (folder / name / "log.jsonl").write_text(log)
    return folder


def _base(script: str, place, betons, photo_folder) -> dict:
    """A command line that works, and soon."""
    train = {
        "data.train_dataset": betons["train"], "data.val_dataset": betons["val"], "data.num_workers": 1,
        "data.in_memory": 1, "training.batch_size": 60, "training.epochs": 1, "training.precision": "none",
        "validation.batch_size": 41, "validation.resolution": 32, "logging.folder": place / "work",
        "logging.name": "run",
    }  # fmt: skip
    return {
        IMAGENET: train | {"model.arch": "timm:test_resnet", "resolution.min_res": 32, "resolution.max_res": 32},
        TRANSFORMERS: train | {"model.arch": "timm:test_vit", "model.img_size": 32, "data.resolution": 32},
        WRITE: {"cfg.data_dir": photo_folder / "val", "cfg.split": "val", "cfg.write_path": place / "work/a.beton"},
        PROFILE: {
            "profile.photos": photo_folder / "train", "profile.dataset": betons["train"], "profile.loaders": "beton",
            "profile.val_photos": photo_folder / "val", "profile.val_dataset": betons["val"],
            "profile.config": place / "file.yaml", "profile.out": place / "work",
        },
        **dict.fromkeys(
            (AGAINST, CALLABLES, VIEWS), {"bench.photos": photo_folder / "val", "bench.out": place / "work/a.json"}
        ),
        FORMATS: {"bench.photos": photo_folder / "val", "bench.out": place / "work/a.json"},
        CLOCK_COST: {
            "bench.dataset": betons["val"], "bench.out": place / "work/a.json", "bench.rounds": 2, "bench.seconds": 0,
        },
        PLAN_CHECK: {"bench.photos": photo_folder / "val", "bench.out": place / "work/a.json"},
        VIT_LEVIT: {"bench.photos": photo_folder, "bench.folder": place / "work"},
        CEILING: {"bench.datasets": betons["val"], "bench.out": place / "work/a.json"},
        MODES: {"bench.photos": photo_folder, "bench.out": place / "work/a.json"},
        GPU: {"bench.out": place / "work/a.json", "bench.device": "cpu", "bench.parts": "loaders"},
        CACHED: {
            "bench.photos": photo_folder / "val", "bench.work": place / "work", "bench.out": place / "work/a.json",
            "bench.gb": 0.001,
        },
        QUASI: {"bench.out": place / "work/a.json", "bench.samples": 1000, "bench.ranks": 8, "bench.batch_size": 1},
        FFCV_API: {
            "bench.photos": photo_folder / "val", "bench.out": place / "work/a.json", "bench.chains": "imagenet",
            "bench.rounds": 1, "bench.starts": 1, "bench.seconds": 0.01,
        },
        SCALING: {"scale.out": place / "work/a.md"},
        SERIAL: {"bench.out": place / "work/a.json", "bench.rounds": 1, "bench.seconds": 0},
        SOAK: {"soak.datasets": betons["val"], "soak.out": place / "work/a.json", "soak.minutes": 0.01},
    }[script]  # fmt: skip


@pytest.fixture
def command(place, betons, photo_folder):
    """command(script, **changes): a command line that works, with changes; __ stands for the dot."""
    return lambda script, **changes: options(_base(script, place, betons, photo_folder), **changes)


@pytest.fixture
def nothing_is_left(place):
    """The scripts write nothing but into `taken`."""
    yield
    left = [path for path in (place / "work").iterdir() if path.name != "taken"]
    for path in left:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert not left


class WentOn(Exception):
    """The script has taken the nonsense and begun its work in other processes."""


@pytest.fixture
def no_processes(monkeypatch):
    popen = subprocess.Popen

    def went_on(words, *more, **options):
        if words[0] == "uname":  # Python's own, for platform.processor()
            return popen(words, *more, **options)
        raise WentOn(words)

    monkeypatch.setattr(subprocess, "Popen", went_on)
    monkeypatch.setattr(torch.multiprocessing, "spawn", went_on)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # Not the machine's: it may have any number of both
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
