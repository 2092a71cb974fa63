"""Measurements in rounds: every measurement is a fresh process, and each round has another order."""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from beton.errors import UserError
from runtime.profiling import runs
from runtime.profiling.runs import spread

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass
class Figures:
    """The measurements of one loader by one protocol (train: with one recipe)."""

    loader: str
    protocol: str
    config: str | None = None
    recipe: str = ""  # its name, when there are several
    rounds: list[dict] = field(default_factory=list)
    skipped: str | None = None  # why it is not measured

    def label(self) -> str:
        """Name of its runs."""
        return f"{self.loader}, {self.recipe}" if self.recipe else self.loader

    def runs(self) -> list[dict]:
        """Protocol train: its runs as of runtime.profiling.runs.load_run."""
        return [runs.load_run(r["folder"]) for r in self.rounds if "folder" in r]

    def row(self) -> dict:
        """The report's row: medians over the rounds, with their spread."""
        # Rows of one protocol are compared with each other, so each recipe is a protocol of its own
        about = {"loader": self.loader, "protocol": f"{self.protocol} {self.recipe}".strip()}
        if self.skipped:
            return {**about, "skipped": self.skipped}
        if self.protocol == "train":
            row = runs.row_from_runs(self.loader, self.runs()) | about
        else:
            row = {**about, "wait_share": None, "top_1": None}
            row["values"] = [r["images_per_second"] for r in self.rounds]  # for comparisons
            row["images_per_second"] = spread([r["images_per_second"] for r in self.rounds])
            row["seconds_per_epoch"] = spread([r["images"] / r["images_per_second"] for r in self.rounds])
            row["first_batch_seconds"] = statistics.median(r["first_batch_seconds"] for r in self.rounds)
        row["cpu_seconds_per_image"] = statistics.median(r["cpu_seconds_per_image"] for r in self.rounds)
        row["peak_memory_bytes"] = max(r["peak_memory_bytes"] for r in self.rounds)
        return row


def measure_rounds(figures: list[Figures], count: int, measure: Callable[[Figures, int], dict]) -> None:
    """Append `count` results of measure(figures, round) to each that is not skipped, in interleaved order."""
    for number in range(count):
        turn = [f for f in figures if not f.skipped]
        random.Random(number).shuffle(turn)
        for f in turn:
            f.rounds.append(measure(f, number))
            print(f"=> {f.protocol}, round {number + 1} of {count}: {f.loader}", flush=True)


def measure_load(loader: str, task: dict, seconds: float) -> dict:
    """Protocol load: one loader in a fresh process.

    `task`: arguments of beton.loading.task.Task; `seconds`: time at least so long. Returns the figures of
    runtime.profiling.measure.measure.
    """
    request = json.dumps({"loader": loader, "seconds": seconds, "task": task})
    command = [sys.executable, "-m", "runtime.profiling.measure", request]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"loader '{loader}' failed with status {done.returncode}", "see the message above")
    figures = json.loads(done.stdout.splitlines()[-1])
    if "error" in figures:
        what, _, to_do = figures["error"].rpartition("; ")
        raise UserError(f"loader '{loader}': {what}", to_do)
    return figures


def measure_train(trainer: Path, loader: str, config: str, given: dict, out: Path, keep: bool = False) -> dict:
    """Protocol train: the trainer with a recipe in a fresh process.

    `given`: parameter -> value for the trainer; its run folder is made below `out`. Checkpoints and weights are removed
    unless `keep`. Returns the folder, cpu_seconds_per_image and peak_memory_bytes.
    """
    parent = Path(tempfile.mkdtemp(prefix=f"{loader}_", dir=out))
    given = {"data.loader": loader, **given, "logging.folder": parent, "logging.name": "run"}
    command = [sys.executable, str(trainer), f"--config-file={config}"]
    process = subprocess.Popen([*command, *(f"--{name}={value}" for name, value in given.items())])
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode == 2:
        sys.exit(2)  # it has printed why, in one line
    if process.returncode:
        raise UserError(f"training with loader '{loader}' failed with status {process.returncode}", "see above")
    for path in [] if keep else [*(parent / "run").glob("*.pt"), *(parent / "run").glob("*.classes.json")]:
        path.unlink()
    images = sum(line["images"] for line in runs.load_run(parent / "run")["epochs"])
    return {
        "folder": parent / "run",
        "cpu_seconds_per_image": (usage.ru_utime + usage.ru_stime) / images,
        "peak_memory_bytes": usage.ru_maxrss * 1024,
    }
