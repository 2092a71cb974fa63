"""How close the loader comes to what the machine allows, for each storage mode and type of batch -> JSON.

    python benchmarks/ceiling.py --bench.datasets=raw.beton,blocks.beton,jpg.beton --bench.out=ceiling.json

The ceiling counts what cannot be left out: the bytes of a crop as they are stored and as they come out, at the rate at
which as many threads copy memory; for JPEGs the entropy decoding of a crop's rows too, at the rate of this decoder.
What it leaves out: inverse DCT, resizing, colours, normalisation and Python.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from runtime import preflight

preflight.check()

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
from fastargs import Config, Param, Section

from beton.files import publish
from beton.format.file import BetonFile
from beton.rng import sample_keys
from beton.stages.parse import parse as parse_stages
from runtime import machine
from runtime.config import FLOAT, INT, PATH, PATHS, between, parse, run
from runtime.outputs import check_file
from runtime.profiling.process import Measuring
from runtime.profiling.runs import spread
from runtime.training.sections import WORKERS

_SIDE, _BATCH = 224, 128
# The stages, and the bytes of a number that comes out
_TYPES = {"float32": (f"rrc({_SIDE})|flip|normalize", 4), "uint8": (f"rrc({_SIDE})|flip", 1)}
# A photo becomes so small that of each block only the mean is made: what is left is the entropy decoding
_ENTROPY = "center(4, 1)"
_COPIED = 64 << 20  # bytes that each thread copies at a time: more than caches hold


def declare() -> Config:
    """The section `bench`."""
    config = Config()
    Section("bench", "what to measure", config_descriptor=config).params(
        datasets=Param(PATHS, "betons, with commas; each is measured with float32 and uint8 batches", required=True),
        out=Param(PATH, "the JSON to write", required=True),
        rounds=Param(between(INT, 1, 1000), "measurements of each row", default=5),
        seconds=Param(between(FLOAT, 0, 3600), "time each at least so long (whole epochs)", default=2),
        workers=Param(WORKERS, "threads", default=2),
    )
    return config


def main(argv: list[str]) -> None:
    """Measure, write the JSON, print its rows."""
    bench = parse(declare(), argv).bench
    check_file(Path(bench.out))
    paths = bench.datasets.split(",")
    jobs = {(path, kind): stages for path in paths for kind, (stages, _) in _TYPES.items()}
    jobs |= {(path, "entropy"): _ENTROPY for path in paths if has_jpegs(path)}
    figures, rates = measure(jobs, bench)
    rows = [row(path, kind, figures, rates) for path in paths for kind in _TYPES]
    results = {
        "title": "The loader and the machine's limits",
        "machine": {**machine.facts(), "versions": machine.versions()},
        "settings": {name: getattr(bench, name) for name in ("rounds", "seconds", "workers")} | {"batch_size": _BATCH},
        "copied_bytes_per_second": spread(rates),
        "rows": rows,
    }
    publish(Path(bench.out), json.dumps(results, indent=1) + "\n")
    for found in rows:
        of = found["images_per_second"]["median"]
        print(f"{found['dataset']} {found['dtype']}: {of:.0f} images/s, {found['share']:.0%} of {found['ceiling']:.0f}")


def has_jpegs(path: str) -> bool:
    """Whether images of a .beton are stored as JPEG."""
    with BetonFile(path) as file:
        return bool((file.columns["image"].records["mode"] == 0).any())


def measure(jobs: dict, bench) -> tuple[dict, list[float]]:
    """Images a second of each job in each round, in turn, and the bytes a second that threads copy."""
    figures, rates = {job: [] for job in jobs}, []
    with ExitStack() as stack:
        processes = {}
        for job, stages in jobs.items():
            task = {"dataset": job[0], "stages": {"image": stages}, "batch_size": _BATCH, "workers": bench.workers}
            processes[job] = stack.enter_context(Measuring("beton"))
            processes[job].ask("open", task=task)
        for number in range(bench.rounds):
            rates.append(copied_per_second(bench.workers))
            for job in random.Random(number).sample(list(jobs), len(jobs)):
                found = processes[job].ask("measure", seconds=bench.seconds)
                figures[job].append(found["images_per_second"])
    return figures, rates


def copied_per_second(threads: int) -> float:
    """Bytes a second that so many threads copy from one place in memory to another."""
    pairs = [(np.zeros(_COPIED, np.uint8), np.ones(_COPIED, np.uint8)) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        started, copied = time.perf_counter(), 0
        while (passed := time.perf_counter() - started) < 0.5:
            list(pool.map(lambda pair: np.copyto(*pair), pairs))
            copied += threads * _COPIED
    return copied / passed


def crops(path: str) -> tuple[float, float]:
    """Mean bytes that a crop has of what is stored, and its mean share of a photo's rows."""
    stage = parse_stages(_TYPES["uint8"][0])[0]
    with BetonFile(path) as file:
        image = file.columns["image"]
        heights, widths = (image.records[side].astype(np.int64) for side in ("height", "width"))
        boxes = stage.boxes(heights, widths, sample_keys(0, 1, np.arange(len(file))))
        share = boxes[:, 2] * boxes[:, 3] / (heights * widths)
        return float((image.sizes * share).mean()), float((boxes[:, 2] / heights).mean())


def row(path: str, kind: str, figures: dict, rates: list[float]) -> dict:
    """A row of the JSON."""
    stored, rows = crops(path)
    made = 3 * _SIDE * _SIDE * _TYPES[kind][1]
    # A copy reads each byte and writes it: here the stored ones are read and the made ones written
    seconds = (stored + made) / 2 / spread(rates)["median"]
    entropy = figures.get((path, "entropy"))
    if entropy:
        seconds += rows / spread(entropy)["median"]
    speed = spread(figures[path, kind])
    return {
        "dataset": Path(path).name,
        "dtype": kind,
        "bytes_in": stored,
        "bytes_out": made,
        "images_per_second": speed,
        "entropy_decoded_per_second": spread(entropy) if entropy else None,
        "ceiling": 1 / seconds,
        "share": speed["median"] * seconds,
    }


if __name__ == "__main__":
    run(main)
