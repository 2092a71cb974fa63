"""A simulation of the order of a file larger than memory: how much of it is in memory, how well it is mixed -> JSON.

    python benchmarks/quasi_random.py --bench.out=docs/quasi_random.json

By default as large as ImageNet-21k, on 64 ranks of 8 machines; no photo is read. The samples lie class by class, as in
class folders, or shuffled (rows `sorted`, `shuffled`). For each cache, a share of the file over all machines:

- `peak_bytes_of_rank`: the most that a rank has in memory, and `pages_read`: by all ranks, for each page of the file.
- `classes`: distinct classes in a batch of all ranks, and of one rank, relative to random order; `pages` likewise.
- `dispersion`: the variance of the number of photos of a class in a batch of all ranks, relative to random order
  (1: as if drawn at random).
- `same_class`: how often two photos that lie so far apart in the order are of one class, relative to random order:
  neighbours, neighbours on one rank, in the next step, ten steps later. A training sees classes come and go above 1.

The order is CorgiPile's idea (Xu et al., "Stochastic Gradient Descent without Full Data Shuffle", 2022), blocks at
random, then samples within a buffer of them, with a buffer that slides.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from runtime import preflight

preflight.check()

import json
import os
import time
from unittest import mock

import numpy as np
from fastargs import Config, Param, Section

from beton.errors import UserError
from beton.files import publish
from beton.loading.cache import LEAD, Pages, Schedule
from beton.loading.orders import rank_share
from beton.loading.task import Task
from beton.rng import permutation
from runtime import machine
from runtime.config import FLOAT, INT, PATH, between, parse, run
from runtime.outputs import check_file

_PAGE = 8 << 20
# Caches of all machines together, as shares of the file
_SHARES = (0.1, 0.02, 0.005)
_STEPS = 100  # batches that are looked at, spread over the epoch
_RANKS = 4  # ranks whose memory is looked at


def declare() -> Config:
    """The section `bench`."""
    config = Config()
    Section("bench", "what to simulate", config_descriptor=config).params(
        out=Param(PATH, "the JSON to write", required=True),
        samples=Param(between(INT, 1000, 1_000_000_000), "photos", default=14_000_000),
        classes=Param(between(INT, 2, 1_000_000), "classes, of which a few are large", default=21_841),
        kilobytes=Param(between(FLOAT, 0.1, 8000), "of a photo, in the mean", default=100),
        ranks=Param(between(INT, 1, 65_536), "ranks", default=64),
        machines=Param(between(INT, 1, 65_536), "machines", default=8),
        batch_size=Param(between(INT, 1, 65_536), "photos in a batch of a rank", default=64),
        seed=Param(between(INT, 0, 2**31 - 1), "of everything", default=0),
    )
    return config


def main(argv: list[str]) -> None:
    """Simulate, write the JSON, print its rows."""
    bench = parse(declare(), argv).bench
    check_file(Path(bench.out))
    if bench.ranks % bench.machines:
        raise UserError(f"{bench.ranks} ranks are not shared by {bench.machines} machines", "give a multiple")
    if bench.samples < 20 * bench.ranks * bench.batch_size:
        raise UserError("there are less than 20 batches in an epoch", "give more samples, or a smaller batch")
    started = time.process_time()
    file = File(bench)
    rows = []
    with mock.patch.dict(os.environ, LOCAL_WORLD_SIZE=str(bench.ranks // bench.machines)):
        random = Task("random", bench.batch_size, 1, seed=bench.seed, world_size=bench.ranks)
        expected = {name: mixing(file, labels, random) for name, labels in file.labels.items()}
        for share in _SHARES:
            rows += rows_of(file, share, bench, expected)
    results = {
        "title": "The order of a file larger than memory",
        "machine": {**machine.facts(), "versions": machine.versions()},
        "settings": {name: value for name, value in vars(bench).items() if name != "out"}
        | {"page_bytes": _PAGE, "file_bytes": file.bytes, "pages": file.pages.count},
        "cpu_seconds": time.process_time() - started,
        "rows": rows,
    }
    publish(Path(bench.out), json.dumps(results, indent=1) + "\n")
    for found in rows:
        print(json.dumps(found))


class File:
    """Where the photos of a simulated file lie, and of what classes they are."""

    def __init__(self, bench):
        draws = np.random.default_rng(bench.seed)
        # Log-normal, as the sizes of JPEGs; no payload crosses a page
        sizes = np.maximum(draws.lognormal(0, 0.4, bench.samples) * bench.kilobytes * 1000 / np.exp(0.08), 64)
        sizes = np.minimum(sizes, _PAGE).astype(np.int64)
        self.starts = placed(sizes)
        self.stops = self.starts + sizes
        of_sample = self.starts // _PAGE
        self.pages = Pages(of_sample, int(of_sample[-1]) + 1, _PAGE)
        self.bytes = int(self.stops[-1])
        shares = draws.lognormal(0, 1, bench.classes)
        ends = np.cumsum(shares) / shares.sum() * bench.samples
        by_class = np.searchsorted(ends, np.arange(bench.samples), "right").clip(max=bench.classes - 1)
        self.labels = {"sorted": by_class, "shuffled": by_class[permutation(bench.samples, bench.seed)]}


def placed(sizes: np.ndarray) -> np.ndarray:
    """Addresses of payloads one after the other, none of which crosses a page."""
    ends, starts, at, base = np.cumsum(sizes), np.empty_like(sizes), 0, 0
    page = 0
    while at < len(sizes):
        stop = int(np.searchsorted(ends, base + _PAGE, "right"))
        starts[at:stop] = page * _PAGE + ends[at:stop] - sizes[at:stop] - base
        at, page = stop, page + 1
        base = int(ends[stop - 1])
    return starts


def rows_of(file: File, share: float, bench, expected: dict) -> list[dict]:
    """The rows of a cache that is this share of the file."""
    of_machine = share * file.bytes / bench.machines / 1e9
    task = Task(
        "simulated", bench.batch_size, 1, seed=bench.seed, world_size=bench.ranks, in_memory=False, cache_gb=of_machine
    )
    window = task.window(bench.samples, file.pages)
    order = task._views(bench.samples, 0, file.pages)[0]
    peaks, read = [], 0
    for rank in range(bench.ranks):
        own = rank_share(order, bench.batch_size, rank, bench.ranks, True)
        read += len(np.unique(file.pages.of_sample[own]))
        if rank % max(1, bench.ranks // _RANKS) == 0:
            schedule = Schedule(own, file.pages, file.starts, file.stops)
            peaks.append(schedule.peak(bench.batch_size, LEAD))
    facts = {
        "share": share,
        "cache_gb": of_machine,
        "cache_bytes_of_rank": of_machine * 1e9 * bench.machines / bench.ranks,
        "peak_bytes_of_rank": max(peaks),
        "pages_read": read / file.pages.count,
        "lanes": window.lanes,
        "pages_of_lane": window.pages,
    }
    found = {name: mixing(file, labels, task, order) for name, labels in file.labels.items()}
    return [{"file": name, **facts, **relative(found[name], expected[name])} for name in found]


def mixing(file: File, labels: np.ndarray, task: Task, order: np.ndarray | None = None) -> dict:
    """How an epoch is mixed (see above), as it is."""
    order = task._views(len(labels), 0, file.pages)[0] if order is None else order
    batch, ranks = task.batch_size * task.world_size, task.world_size
    in_order, pages = labels[order], file.pages.of_sample[order]
    counts = np.bincount(labels)
    steps = np.linspace(0, len(order) // batch - 1, _STEPS).astype(int)
    found = {"classes": [], "classes_of_rank": [], "pages": [], "dispersion": []}
    for step in steps:
        here = slice(step * batch, (step + 1) * batch)
        found["classes"].append(len(np.unique(in_order[here])))
        found["classes_of_rank"].append(len(np.unique(in_order[here][::ranks])))
        found["pages"].append(len(np.unique(pages[here])))
        expected = counts * (batch / len(labels))
        differs = np.bincount(in_order[here], minlength=len(counts)) - expected
        found["dispersion"].append(float((differs[counts > 0] ** 2).sum()))
    facts = {name: float(np.mean(values)) for name, values in found.items()}
    lags = {"neighbours": 1, "on_a_rank": ranks, "next_step": batch, "ten_steps": 10 * batch}
    facts["same_class"] = {name: float((in_order[lag:] == in_order[:-lag]).mean()) for name, lag in lags.items()}
    return facts


def relative(found: dict, expected: dict) -> dict:
    """What is found as a share of what is expected."""
    shares = {name: value / expected[name] for name, value in found.items() if name != "same_class"}
    return shares | {"same_class": {n: value / expected["same_class"][n] for n, value in found["same_class"].items()}}


if __name__ == "__main__":
    run(main)
