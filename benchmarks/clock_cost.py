"""What it costs to know where the time goes: CPU time with the clocks and without them -> JSON.

    python benchmarks/clock_cost.py --bench.dataset=train.beton --bench.out=docs/clock_cost.json

The loader's clock (data.timed=1): two loaders of the same file, one `timed`, read whole epochs in turns, and which is
first changes. The trainer's clock, which always runs: what watching and marking a batch takes, of batches that are
there already.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from runtime import preflight

preflight.check()

import json
import math
import statistics
import time

import torch
from fastargs import Config, Param, Section

import beton
from beton.files import publish
from runtime import machine
from runtime.config import FLOAT, INT, PATH, STR, between, parse, run
from runtime.outputs import check_file
from runtime.profiling.compare import t_95
from runtime.profiling.runs import spread
from runtime.training.clock import EpochClock
from runtime.training.sections import BATCH, WORKERS

_BATCHES = 20_000  # that the trainer's clock watches


def declare() -> Config:
    """The section `bench`."""
    config = Config()
    Section("bench", "how to measure", config_descriptor=config).params(
        dataset=Param(PATH, "a .beton with images", required=True),
        out=Param(PATH, "the JSON to write", required=True),
        stages=Param(STR, "the pipeline", default="rrc(224)|flip|normalize"),
        batch_size=Param(BATCH, "photos in a batch", default=128),
        workers=Param(WORKERS, "threads of the loader", default=2),
        rounds=Param(between(INT, 2, 1000), "pairs of measurements", default=30),
        seconds=Param(between(FLOAT, 0, 3600), "read each at least so long (whole epochs)", default=1),
    )
    return config


def main(argv: list[str]) -> None:
    """Measure, write the JSON, print its rows."""
    bench = parse(declare(), argv).bench
    check_file(Path(bench.out))
    given = {"batch_size": bench.batch_size, "workers": bench.workers, "image": bench.stages}
    found = {False: [], True: []}
    with beton.Loader(bench.dataset, **given) as plain, beton.Loader(bench.dataset, timed=True, **given) as timed:
        loaders = {False: plain, True: timed}
        for loader in loaders.values():
            cpu_seconds(loader, 0.0)
        for number in range(bench.rounds):
            for which in (False, True) if number % 2 else (True, False):
                found[which].append(cpu_seconds(loaders[which], bench.seconds))
    rows = [
        {
            "what": f"beton.Loader, {bench.stages}",
            "cpu_ms_per_image": spread([1e3 * seconds for seconds in found[False]]),
            "cpu_ms_per_image_timed": spread([1e3 * seconds for seconds in found[True]]),
            **overhead(found[False], found[True]),
        },
        {"what": "the trainer's clock", "us_per_batch": 1e6 * marking()},
    ]
    settings = {name: getattr(bench, name) for name in ("stages", "batch_size", "workers", "rounds", "seconds")}
    facts = {"machine": machine.facts(), "versions": machine.versions(), "settings": settings, "rows": rows}
    publish(Path(bench.out), json.dumps(facts, indent=1) + "\n")
    for row in rows:
        print(row)


def cpu_seconds(loader: beton.Loader, seconds: float) -> float:
    """CPU seconds an image, all threads together, of whole epochs."""
    images, started, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - started < seconds or not images:
        images += sum(len(batch[0]) for batch in loader)
    return (time.process_time() - cpu) / images


def overhead(without: list[float], timed: list[float]) -> dict:
    """{"overhead", "low", "high", "n"}: by how much more, as a fraction, with Student's 95 % interval of the pairs."""
    logs = [math.log(b / a) for a, b in zip(without, timed, strict=True)]
    middle, half = statistics.fmean(logs), t_95(len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    middle, low, high = (math.expm1(value) for value in (middle, middle - half, middle + half))
    return {"overhead": middle, "low": low, "high": high, "n": len(logs)}


def marking() -> float:
    """Seconds a batch of the trainer's clock on a CPU: the watch, and the marks of the two parts of a step."""
    batches = [(torch.zeros(1), torch.zeros(1))] * _BATCHES
    clock = EpochClock(torch.device("cpu"))
    started = time.process_time()
    for _ in clock.watch(iter(batches)):
        clock.mark("compute")
        clock.mark("optimizer")
    clock.stop()
    return (time.process_time() - started) / _BATCHES


if __name__ == "__main__":
    run(main)
