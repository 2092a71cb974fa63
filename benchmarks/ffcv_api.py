"""FFCV's API on this engine (beton.ffcv), beside beton.Loader and stock FFCV 1.0.2 -> JSON.

    python benchmarks/ffcv_api.py --bench.photos=FOLDER --bench.out=docs/ffcv_api.json

The two chains that most code for FFCV has (of ImageNet, JPEGs of at most 500 px, and of CIFAR-10, 32 px raw) and one
with an operation of a user's own that numba compiles; on a CPU, float32. Each side is a process that stays open through
the rounds, in which all are measured one after the other. First batches are those of fresh processes, from the import
of the loader on, without that of Python, torch and torchvision; this library's compiled code is on disk from the first
start on.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from runtime import preflight

preflight.check()

import contextlib
import importlib.util
import json
import os
import subprocess
import tempfile

import numpy as np
from fastargs import Config, Param, Section

import beton
from benchmarks.views import First
from beton.errors import UserError
from beton.files import publish
from beton.sources import open_source
from runtime import machine
from runtime.config import FLOAT, INT, PATH, STR, between, parse, run
from runtime.outputs import check_file
from runtime.profiling.runs import spread
from runtime.training.sections import WORKERS

_CHILD = Path(__file__).with_name("_ffcv_api_child.py")
_BATCH = {"imagenet": 64, "cifar": 512, "own": 64}
_SMALL = 20_000


def declare() -> Config:
    """The section `bench`."""
    config = Config()
    Section("bench", "how to measure", config_descriptor=config).params(
        photos=Param(PATH, "a folder with one folder of photos for each class", required=True),
        out=Param(PATH, "the JSON to write", required=True),
        rounds=Param(between(INT, 1, 1000), "measurements of each row", default=5),
        starts=Param(between(INT, 1, 100), "first batches of each row", default=2),
        seconds=Param(between(FLOAT, 0.01, 1000), "of each measurement, at least; whole epochs", default=2.0),
        count=Param(between(INT, 64, 10**6), "photos, evenly from the folder", default=512),
        chains=Param(STR, "which, with commas", default="imagenet,cifar,own"),
        workers=Param(WORKERS, "threads of each loader", default=2),
    )
    return config


class Squares:
    """Small images of noise, with labels."""

    def __len__(self) -> int:
        return _SMALL

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return np.random.default_rng(index).integers(0, 256, (32, 32, 3)).astype(np.uint8), index % 10


class Side:
    """A loader in a process of its own."""

    def __init__(self, side: str, chain: str, path: Path, workers: int):
        command = [sys.executable, str(_CHILD), side, chain, str(path), str(_BATCH[chain]), str(workers)]
        root = str(_CHILD.parent.parent)
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
        )
        self.first_batch = self._line()["first_batch"]

    def _line(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise UserError(f"a loader ended with {self._process.wait()}", "read what it said above")
        return json.loads(line)

    def measure(self, seconds: float) -> dict:
        """Images a second, and the CPU's time for each."""
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return self._line()

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:  # stock FFCV's threads
            self._process.kill()
            self._process.wait()


def main(argv: list[str]) -> None:
    """Measure, write the JSON, print its rows."""
    bench = parse(declare(), argv).bench
    check_file(Path(bench.out))
    chains = bench.chains.split(",")
    for chain in chains:
        if chain not in _BATCH:
            raise UserError(f"`bench.chains`: there is no chain '{chain}'", f"name one of {', '.join(_BATCH)}")
    stock = ["ffcv"] if importlib.util.find_spec("ffcv") else []
    if not stock:
        print("stock FFCV is not installed: it is left out", file=sys.stderr)
    rows = [(c, s) for c in chains for s in (["beton"] * (c != "own") + ["beton.ffcv", *stock])]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as open_ones:
        paths = write_files(Path(folder), bench.photos, bench.count, chains)
        first, figures = {row: [] for row in rows}, {row: [] for row in rows}
        for start in range(bench.starts):
            sides = {}
            for row in rows:
                sides[row] = Side(row[1], row[0], paths[row[0]], bench.workers)
                first[row].append(sides[row].first_batch)
                if start < bench.starts - 1:
                    sides[row].close()
                else:
                    open_ones.callback(sides[row].close)
        for _ in range(bench.rounds):
            for row, side in sides.items():
                figures[row].append(side.measure(bench.seconds))
    results = {
        "title": "FFCV's API on this engine, beside beton.Loader and stock FFCV",
        "machine": {**machine.facts(), "versions": machine.versions()},
        "settings": {name: getattr(bench, name) for name in ("rounds", "starts", "seconds", "count", "workers")},
        "rows": [_row(*row, first[row], figures[row]) for row in rows],
    }
    publish(Path(bench.out), json.dumps(results, indent=1) + "\n")
    for row in results["rows"]:
        print(row)


def write_files(folder: Path, photos: str, count: int, chains: list[str]) -> dict[str, Path]:
    """The file of each chain, as FFCV reads it."""
    large, small = folder / "photos.beton", folder / "squares.beton"
    if set(chains) - {"cifar"}:
        beton.write(
            First(open_source("imagefolder", photos, "train"), count), large, write_mode="jpg", max_resolution=500
        )
    if "cifar" in chains:
        beton.write(Squares(), small, write_mode="raw")
    return {"imagenet": large, "own": large, "cifar": small}


def _row(chain: str, side: str, first: list[float], figures: list[dict]) -> dict:
    of_all = {name: spread([found[name] for found in figures]) for name in figures[0]}
    return {"chain": chain, "side": side, "first_batch_seconds": spread(first), **of_all}


if __name__ == "__main__":
    run(main)
