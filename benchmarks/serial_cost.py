"""What the loader costs beside its kernels: Python, which one thread at a time can run -> JSON.

    python benchmarks/serial_cost.py --bench.out=docs/serial_cost.json

The kernels are replaced by one that does nothing. What is left of an epoch is its order, the hand-out of work, what is
drawn for each sample, and the batches' hand-over: at so many images a second, more cores would be of no use.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from runtime import preflight

preflight.check()

import json
import random
import tempfile
import time
from unittest import mock

import numpy as np
from fastargs import Config, Param, Section

import beton
from beton.files import publish
from beton.format.fields import _image_decoder
from runtime import machine
from runtime.config import FLOAT, INT, PATH, between, parse, run
from runtime.outputs import check_file
from runtime.profiling.runs import spread
from runtime.training.sections import WORKERS

_SAMPLES = 20_000
# Side of the images in pixels, and the sizes of a batch from which the cost of a batch is told from that of an image
_SIDES, _BATCHES = (32, 64, 160, 224), (64, 512)


def declare() -> Config:
    """The section `bench`."""
    config = Config()
    Section("bench", "how to measure", config_descriptor=config).params(
        out=Param(PATH, "the JSON to write", required=True),
        rounds=Param(between(INT, 1, 1000), "measurements of each row", default=5),
        seconds=Param(between(FLOAT, 0, 3600), "time each at least so long (whole epochs)", default=1),
        workers=Param(WORKERS, "threads of the loader", default=2),
    )
    return config


def main(argv: list[str]) -> None:
    """Measure, write the JSON, print its rows."""
    bench = parse(declare(), argv).bench
    check_file(Path(bench.out))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.beton"
        beton.write(_Photos(), path, workers=1, write_mode="raw")
        figures = {(side, batch): [] for side in _SIDES for batch in _BATCHES}
        for number in range(bench.rounds):
            for key in random.Random(number).sample(list(figures), len(figures)):
                figures[key].append(measure(path, *key, bench.workers, bench.seconds))
    results = {
        "title": "The loader without its kernels",
        "machine": {**machine.facts(), "versions": machine.versions()},
        "settings": {name: getattr(bench, name) for name in ("rounds", "seconds", "workers")},
        "rows": [row(side, figures) for side in _SIDES],
    }
    publish(Path(bench.out), json.dumps(results, indent=1) + "\n")
    for found in results["rows"]:
        print(found)


class _Photos:
    """Photos of 8 x 8 pixels, of which nothing is read."""

    def __len__(self) -> int:
        return _SAMPLES

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return np.zeros((8, 8, 3), np.uint8), 0


def measure(path: Path, side: int, batch_size: int, workers: int, seconds: float) -> dict:
    """Images a second, and CPU seconds an image, of whole epochs."""
    nothing = mock.patch.object(_image_decoder, "crop_all", lambda *_: (0, -1))
    stages = f"rrc({side})|flip|normalize"
    with nothing, beton.Loader(path, batch_size, image=stages, workers=workers) as loader:
        for _ in loader:
            pass
        images, started, cpu = 0, time.perf_counter(), time.process_time()
        while (passed := time.perf_counter() - started) < seconds or not images:
            images += sum(len(labels) for _, labels in loader)
    return {"images_per_second": images / passed, "cpu_seconds_per_image": (time.process_time() - cpu) / images}


def row(side: int, figures: dict) -> dict:
    """A side's row: images a second with the large batch, CPU microseconds of an image and of a batch."""
    few, many = (spread([f["cpu_seconds_per_image"] for f in figures[side, batch]])["median"] for batch in _BATCHES)
    # cpu(batch) = batch / size + image
    of_batch = (few - many) / (1 / _BATCHES[0] - 1 / _BATCHES[1])
    return {
        "what": f"crops of {side} px",
        "side": side,
        "batch_size": _BATCHES[1],
        "images_per_second": spread([f["images_per_second"] for f in figures[side, _BATCHES[1]]]),
        "cpu_us_per_image": 1e6 * (few - of_batch / _BATCHES[0]),
        "cpu_us_per_batch": 1e6 * of_batch,
    }


if __name__ == "__main__":
    run(main)
