"""Small training runs, in processes that can be interrupted, and what they leave behind.

A trainer writes a byte to `steps` for each step that it has made, so that tests can wait for steps and know how many
there were.
"""

import functools
import hashlib
import json
import os
from pathlib import Path

from tests.support.scripts import Forked, options, run_main

RESNET = {
    "model.arch": "timm:test_resnet",
    "data.num_workers": 1,
    "data.in_memory": 1,
    "resolution.min_res": 32,
    "resolution.max_res": 64,
    "resolution.start_ramp": 0,
    "resolution.end_ramp": 2,
    "training.batch_size": 8,
    "training.epochs": 3,
    "training.use_blurpool": 1,
    "training.precision": "none",
    "training.resume": "auto",
    "training.checkpoint_minutes": 0,
    "lr.lr": 0.05,
    "lr.lr_peak_epoch": 1,
    "validation.batch_size": 16,
    "validation.resolution": 32,
    "logging.name": "run",
}
# 3-Augment, repeated augmentation, Mixup with BCE, drop path, accumulation (5 batches: the last step has one), LAMB,
# moving average
VIT = RESNET | {
    "model.arch": "timm:test_vit",
    "model.img_size": 32,
    "model.drop_path": 0.2,
    "data.resolution": 32,
    "data.train_stages": "rrc({res}, interpolation='bicubic')|flip|three_augment|jitter(0.3)|normalize",
    "training.batch_size": 48,
    "training.epochs": 2,
    "training.accumulate": 2,
    "training.repeats": 3,
    "training.optimizer": "lamb",
    "training.loss": "bce",
    "training.bce_target_threshold": 0,
    "training.label_smoothing": 0,
    "training.mixup": 0.8,
    "training.cutmix": 1.0,
    "training.ema": 0.9,
    "lr.lr": 1e-3,
    "lr.warmup_epochs": 1,
}
for _key in [key for key in VIT if key.startswith("resolution.")] + ["training.use_blurpool", "lr.lr_peak_epoch"]:
    del VIT[_key]
_TIMES = (
    *("timestamp", "relative_time", "train_time", "wait_time", "first_batch_time", "images_per_second", "val_time"),
    *("transfer_time", "compute_time", "optimizer_time", "compile_time", "other_time", "epoch_time", "idle_cores"),
    *("images_per_second_of_all_ranks", "slowest_rank", "longest_wait_time"),
)


class Run(Forked):
    """A trainer in `folder`, with `settings` as its command line; `hook(folder)` is called before it begins."""

    def __init__(self, folder: Path, settings: dict, script: str = "train_imagenet.py", hook=None):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "steps").write_bytes(b"")
        self.run = folder / "run"
        argv = options(settings | {"logging.folder": folder})
        super().__init__(folder, run_main, script, argv, functools.partial(_prepare, str(folder), hook))

    @property
    def steps(self) -> int:
        return (self.folder / "steps").stat().st_size

    def wait_for_steps(self, count: int) -> None:
        """Until so many steps are made; the run may end before."""
        self.wait_for(lambda: self.steps >= count)

    def wait_until_it_waits(self) -> None:
        """Until a hook has made it wait."""
        self.wait_for((self.folder / "waiting").exists)


def _prepare(folder: str, hook) -> None:
    from runtime.training import engine

    step, steps = engine.step, os.open(f"{folder}/steps", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def counted(*given):
        step(*given)
        os.write(steps, b".")

    engine.step = counted
    if hook:
        hook(folder)


def digest(run: Path, name: str = "final_weights.pt") -> str:
    return hashlib.sha256((run / name).read_bytes()).hexdigest()


def log_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def log_without_times(run: Path) -> list[dict]:
    return [{key: value for key, value in line.items() if key not in _TIMES} for line in log_of(run)]


def position(path: Path) -> tuple[int, int]:
    """Epochs and batches of a checkpoint."""
    import torch

    content = torch.load(path, weights_only=True)
    return content["epoch"], content["batch"]


def assert_whole_photos(line: dict, *names: str, count: int = 41) -> None:
    """Every photo is counted once, so an accuracy is a whole number of photos."""
    for name in names:
        assert abs(line[name] * count - round(line[name] * count)) < 1e-9, name
