"""Epoch after epoch, with everything that can change changing: do memory, threads and open files stay flat? -> JSON.

    python benchmarks/soak.py --soak.datasets=FILE.beton,FILE.beton --soak.minutes=30 --soak.out=docs/soak.json

Each loader is drawn from (seed, its number): data set, stages, resolution, batch size, workers, order in memory or not,
and how each of its one to three epochs ends: read to its end, left by `break`, left by an exception, closed while it is
held, or never begun. The last batches of an epoch are held until the loader is closed, and must not change.
Memory, threads, files and processes are measured after a loader is closed. Flat means: at the end no more threads,
files or processes than at the beginning, and no more than 16 MB more memory (medians of the last and of the second
quarter of the loaders; the first one warms up).
Exit status 1 where it is not flat.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from runtime import preflight

preflight.check()

import ctypes
import gc
import json
import random
import statistics
import threading
import time

import psutil
from fastargs import Config, Param, Section

from beton.errors import UserError
from beton.files import publish
from beton.loading.task import Task
from pipelines import open_pipeline
from runtime import machine
from runtime.config import FLOAT, INT, PATH, PATHS, STR, between, parse, run
from runtime.outputs import check_file
from runtime.profiling.measure import memory_bytes

_STAGES = (
    "rrc({res})|flip|normalize",
    "rrc({res})|flip",
    "center({res})|normalize",
    "rrc({res}, interpolation='bicubic')|flip|three_augment|jitter(0.3, 0.3, 0.3)|normalize",
    "rrc({res})|flip|randaugment('rand-m9-mstd0.5-inc1')|normalize|erase(0.25)",
)
_ENDS = ("read", "read", "read", "break", "exception", "closed", "not begun")
_COUNTED = ("memory_bytes", "threads", "files", "processes")
_ALLOWED_GROWTH = {"memory_bytes": 16e6, "threads": 0, "files": 0, "processes": 0}
_POINTS = 200  # of each curve in the JSON


class _Left(Exception):
    """An epoch is left by an exception of whoever reads it."""


def declare() -> Config:
    """The section `soak`."""
    config = Config()
    Section("soak", "what to read, and for how long", config_descriptor=config).params(
        datasets=Param(
            PATHS, ".beton files, or photo folders for the loader torch; with commas between", required=True
        ),
        minutes=Param(between(FLOAT, 0.01, 10_000), "how long", default=30.0),
        loaders=Param(between(INT, 8, 10**9), "or until so many loaders were used", default=10**9),
        out=Param(PATH, "the JSON to write", required=True),
        loader=Param(STR, "the loader", default="beton"),
        seed=Param(between(INT, 0, 2**31 - 1), "of all random choices", default=0),
        max_batch_size=Param(between(INT, 1, 65536), "batches are not larger", default=256),
    )
    return config


def main(argv: list[str]) -> None:
    """Open loaders until the time is over, and write the JSON."""
    soak = parse(declare(), argv).soak
    check_file(Path(soak.out))
    started, samples = time.monotonic(), []
    totals = {"loaders": 0, "epochs": 0, "batches": 0, "images": 0, "ends": dict.fromkeys(_ENDS, 0)}
    while (passed := time.monotonic() - started) < 60 * soak.minutes and totals["loaders"] < soak.loaders:
        use(soak, random.Random(f"{soak.seed} {totals['loaders']}"), totals)
        samples.append({"seconds": passed, **usage()})
    settings = {"loader": soak.loader, "minutes": soak.minutes, "seed": soak.seed}
    facts = {"machine": machine.facts(), "versions": machine.versions(), "settings": settings}
    facts |= {**totals, **judge(samples)}
    publish(Path(soak.out), json.dumps(facts, indent=1) + "\n")
    for name in _COUNTED:
        print(f"=> {name}: {facts['quarters'][name]}")
    verdict = "flat" if facts["flat"] else "NOT FLAT"
    print(f"=> {totals['epochs']} epochs, {totals['images']} images, {verdict}: {soak.out}")
    if not facts["flat"]:
        sys.exit(1)


def use(soak, draws: random.Random, totals: dict) -> None:
    """Open a loader, read some epochs and close it; raises RuntimeError when a batch changed while it was held."""
    loader = open_pipeline(soak.loader, draw_task(soak, draws))
    number, start = totals["loaders"], draws.choice([0, 0, 1])
    totals["loaders"] += 1
    held = []
    for i in range(draws.randint(1, 3)):
        end = draws.choice(_ENDS)
        held += read(loader, number + i, 0 if i else min(start, len(loader) - 1), end, draws, totals)
        totals["epochs"] += 1
        totals["ends"][end] += 1
        if end == "closed":
            break
    loader.close()
    if any(images.double().sum().item() != total for images, total in held):
        raise RuntimeError("a batch has changed while it was held")


def draw_task(soak, draws: random.Random) -> Task:
    """The task of the next loader."""
    return Task(
        dataset=draws.choice(soak.datasets.split(",")),
        stages={"image": draws.choice(_STAGES).replace("{res}", str(draws.choice([64, 96, 128, 160, 192, 224])))},
        batch_size=min(draws.choice([3, 16, 32, 64, 128, 256, 512]), soak.max_batch_size),
        workers=draws.randint(1, 4),
        seed=draws.randrange(2**31),
        shuffle=draws.random() < 0.8,
        drop_last=draws.random() < 0.5,
        in_memory=draws.random() < 0.5,
    )


def read(loader, epoch: int, start: int, end: str, draws: random.Random, totals: dict) -> list:
    """One epoch that ends as `end` says; returns its last batches with the sums of their pixels."""
    batches = loader.batches(epoch, start)
    if end == "not begun":
        return []
    last = len(loader) if end == "read" else draws.randrange(len(loader))
    kept = []
    try:
        for i, (images, _) in enumerate(batches):
            totals["batches"] += 1
            totals["images"] += len(images)
            kept = [*kept[-1:], (images, images.double().sum().item())]
            if i == last and end == "exception":
                raise _Left
            if i == last:
                break
    except _Left:
        pass
    if end == "closed":
        loader.close()
    return kept


def usage() -> dict:
    """What this process uses now, without the free memory that malloc keeps."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    process = psutil.Process()
    return {
        "memory_bytes": memory_bytes(),
        "threads": threading.active_count(),
        "files": process.num_fds(),
        "processes": len(process.children(recursive=True)),
    }


def judge(samples: list[dict]) -> dict:
    """Medians of each quarter, whether all is flat, and the curves, thinned out."""
    if len(samples) < 8:
        raise UserError(f"{len(samples)} loaders are too few for a verdict", "give more soak.minutes")
    fourth = len(samples) // 4
    quarters = {
        name: [statistics.median(x[name] for x in samples[i * fourth : (i + 1) * fourth]) for i in range(4)]
        for name in _COUNTED
    }
    flat = all(quarters[name][3] - quarters[name][1] <= _ALLOWED_GROWTH[name] for name in _COUNTED)
    return {"quarters": quarters, "flat": flat, "looks": samples[:: max(1, len(samples) // _POINTS)]}


if __name__ == "__main__":
    run(main)
