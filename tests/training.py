"""Scripts as processes that are forked from one that has imported everything: as real as any, without the wait.

A trainer writes a byte to `steps` for each step that it has made, so that tests can wait for steps and know how many
there were. Only the standard library at the top: the child imports this file.
"""

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ["train_imagenet", "train_transformers", "profile_loaders"]
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
TIMES = ("timestamp", "relative_time", "train_time", "wait_time", "first_batch_time", "images_per_second", "val_time")


class Run:
    """A trainer in `folder`, with `told` as its command line; `hook`: a function of this file, called before it."""

    def __init__(self, folder: Path, told: dict, script: str = "train_imagenet", hook: str = ""):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.run = folder, folder / "run"
        argv = [f"--{key}={value}" for key, value in (told | {"logging.folder": folder}).items()]
        (folder / "steps").write_bytes(b"")
        self.process = _start(script, argv, folder, hook)

    @property
    def steps(self) -> int:
        return (self.folder / "steps").stat().st_size

    @property
    def errors(self) -> str:
        return (self.folder / "errors").read_text()

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text()

    def wait_for_steps(self, count: int) -> None:
        """Until so many steps are made; the run may end before."""
        self.wait_for(lambda: self.steps >= count or not self.process.is_alive())

    def wait_for(self, what) -> None:
        deadline = time.monotonic() + 250
        while not what():
            assert time.monotonic() < deadline, self.errors
            time.sleep(0.002)

    def end(self, timeout: float = 250) -> int:
        """Wait for the end; returns the status."""
        self.process.join(timeout)
        assert not self.process.is_alive(), "it has not ended"
        return self.process.exitcode

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.process.pid, number)

    def stop(self) -> None:
        """Kill it with whatever it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join(10)


def run_forked(script, *argv, timeout=250) -> subprocess.CompletedProcess:
    """As run_script (conftest.py), of a script with a main()."""
    with tempfile.TemporaryDirectory() as folder:
        process = _start(Path(script).stem, list(map(str, argv)), folder)
        process.join(timeout)
        if process.is_alive():
            os.killpg(process.pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired([script, *argv], timeout)
        said = [Path(folder, name).read_text() for name in ("output", "errors")]
    return subprocess.CompletedProcess([script, *argv], process.exitcode, *said)


def _start(script, argv, folder, hook=""):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*SCRIPTS, "runtime.models", "warmed"])
    process = context.Process(target=_main, args=(script, argv, str(folder), hook))
    with _environment(OMP_NUM_THREADS="1", PYTHONPATH=f"{ROOT}:{ROOT}/tests"):
        process.start()
    return process


class _environment:
    def __init__(self, **values):
        self.values = values

    def __enter__(self):
        self.before = {name: os.environ.get(name) for name in self.values}
        os.environ.update(self.values)

    def __exit__(self, *_):
        for name, value in self.before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def digest(run: Path, name: str = "final_weights.pt") -> str:
    return hashlib.sha256((run / name).read_bytes()).hexdigest()


def log_without_times(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def position(path: Path) -> tuple[int, int]:
    """Epochs and batches of a checkpoint."""
    import torch

    content = torch.load(path, weights_only=True)
    return content["epoch"], content["batch"]


def _main(script: str, argv: list[str], folder: str, hook: str) -> None:
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # as in a process that was started by hand
    os.chdir(ROOT)
    for name, file in (("output", 1), ("errors", 2)):
        os.dup2(os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), file)
    sys.argv = [script, *argv]
    sys.path.insert(0, str(ROOT))
    import torch

    from runtime import config, engine

    torch.set_num_threads(1)
    step, steps = engine.step, os.open(f"{folder}/steps", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def counted(*given):
        step(*given)
        os.write(steps, b".")

    engine.step = counted
    if hook:
        globals()[hook](folder)
    config.run(__import__(script).main)


def never_ending_validation(folder):
    from runtime import engine

    engine.evaluate_all = lambda *_: _say_and_wait(folder)


def never_ending_validation_of_one_rank(folder):
    """The other one is done with it, and waits."""
    from runtime import engine

    forked_ranks(folder)
    engine.evaluate_all = lambda recipe, validation, place, flip: (
        _say_and_wait(folder) if place.first else {"val_loss": 0.0, "top_1": 0.0, "top_5": 0.0}
    )


def endless_first_step(folder):
    from runtime import engine

    engine.step = lambda *_: _say_and_wait(folder)


def stalled_loader(folder):
    """No batch after the third."""
    from runtime import clock

    watch = clock.EpochClock.watch

    def stalled(self, loader):
        for i, batch in enumerate(watch(self, loader)):
            if i == 3:
                _say_and_wait(folder)
            yield batch

    clock.EpochClock.watch = stalled


def endless_second_step(folder):
    from runtime import engine

    step = engine.step

    def endless(*given):
        if os.path.getsize(f"{folder}/steps"):
            _say_and_wait(folder)
        step(*given)

    engine.step = endless


def signals_while_saving(folder):
    """Each checkpoint is interrupted by two more SIGTERM when its file is half written."""
    from runtime import checkpoint

    flush = checkpoint._Hashing.flush

    def interrupted(self):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        flush(self)

    checkpoint._Hashing.flush = interrupted


def forked_ranks(folder):
    """Ranks need not import everything again either; that they can: test_train.py."""
    import torch.multiprocessing as mp

    mp.spawn = lambda *args, **kwargs: mp.start_processes(*args, **kwargs, start_method="fork")


def as_after_nohup(folder):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _say_and_wait(folder):
    Path(folder, "waiting").touch()
    while True:
        signal.pause()
