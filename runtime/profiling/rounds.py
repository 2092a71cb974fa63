"""Measurements in rounds, each in another order. A loader's process lives through all of them; a training run is fresh.

Every loader is opened and warmed up before the first round, so that what it compiles is not measured, and so that a
disturbance of the machine meets all loaders alike. While one is measured the others wait for a request.
"""

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


@dataclass
class Figures:
    """The measurements of one loader by one protocol (train: with one recipe)."""

    loader: str
    protocol: str
    config: str | None = None
    recipe: str = ""  # its name, when there are several
    rounds: list[dict] = field(default_factory=list)
    skipped: str | None = None  # why it is not measured
    encoding: str = "original"  # of the photos: "original", or "resized" as in the .beton
    workers: int = 0
    opened: dict = field(default_factory=dict)  # what the first epoch cost
    about: dict = field(default_factory=dict)  # further columns of the row

    def label(self) -> str:
        """Name of its rows and runs."""
        name = f"{self.loader}@{self.encoding}" if self.encoding != "original" else self.loader
        return f"{name}, {self.recipe}" if self.recipe else name

    def runs(self) -> list[dict]:
        """Protocol train: its runs as of runtime.profiling.runs.load_run."""
        return [runs.load_run(r["folder"]) for r in self.rounds if "folder" in r]

    def row(self) -> dict:
        """The report's row: medians over the rounds, with their spread."""
        # Rows of one protocol are compared with each other, so each recipe is a protocol of its own
        name = self.label().removesuffix(f", {self.recipe}")
        about = {"loader": name, "protocol": f"{self.protocol} {self.recipe}".strip(), **self.about}
        if self.skipped or not self.rounds:
            return {**about, "skipped": self.skipped or "interrupted before it was measured"}
        if self.protocol in ("train", "cached"):
            row = runs.row_from_runs(name, self.runs()) | about
        else:
            row = {**about, "wait_share": None, "top_1": None}
            row["values"] = [r["images_per_second"] for r in self.rounds]  # for comparisons
            row["images_per_second"] = spread([r["images_per_second"] for r in self.rounds])
            row["seconds_per_epoch"] = spread([self.opened["images"] / r["images_per_second"] for r in self.rounds])
            row["others_cpu"] = max(r["others_cpu"] for r in self.rounds)
            row |= {key: self.opened[key] for key in ("start_seconds", "first_batch_seconds", "warm_up_seconds")}
        row["cpu_seconds_per_image"] = statistics.median(r["cpu_seconds_per_image"] for r in self.rounds)
        row["peak_memory_bytes"] = max(r["peak_memory_bytes"] for r in ([self.opened] if self.opened else self.rounds))
        return row


def with_ceiling(rows: list[dict], ceilings: set[str]) -> list[dict]:
    """The rows, with "ratio_to_ceiling" where a loader of `ceilings` was measured by the same protocol, or by `cached`.

    As a share of the ceiling's images per second.
    """
    speeds = {}
    for row in rows:
        if row["loader"] in ceilings and row.get("images_per_second"):
            protocol, _, recipe = row["protocol"].partition(" ")
            protocol = "train" if protocol == "cached" else protocol
            speeds.setdefault(f"{protocol} {recipe}".strip(), row["images_per_second"]["median"])
    return [
        row | {"ratio_to_ceiling": row["images_per_second"]["median"] / speeds[row["protocol"]]}
        if row.get("images_per_second") and row["protocol"] in speeds
        else row
        for row in rows
    ]


def measure_rounds(figures: list[Figures], count: int, measure: Callable[[Figures, int], dict], done=None) -> None:
    """Append `count` results of measure(figures, round) to each that is not skipped, in interleaved order.

    A loader whose measurement raises UserError is left out from then on, with the reason. `done(figures, text)` is
    called after each measurement.
    """
    for number in range(count):
        turn = [f for f in figures if not f.skipped]
        random.Random(number).shuffle(turn)
        for f in turn:
            try:
                f.rounds.append(measure(f, number))
            except UserError as error:
                f.skipped = f"{error.what} (round {number + 1})"
            if done is not None:
                done(f, f"{f.protocol}, round {number + 1} of {count}: {f.label()}")


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
