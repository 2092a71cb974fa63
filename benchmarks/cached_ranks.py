"""Four ranks that read a file with the memory of a tenth of it, against random order from the page cache -> JSON.

    python benchmarks/cached_ranks.py --bench.photos=FOLDER --bench.work=SCRATCH --bench.out=docs/cached_ranks.json

The photos are written again and again, as they are, to a .beton of `bench.gb` GB in bench.work, which is removed at the
end. Each rank is a process with a loader of its own; a round is an epoch of all ranks, timed from a barrier to the end
of the slowest, in another order of the arms each time:

- `random`: in_memory=True, the file in the page cache.
- `quasi_random`: in_memory=False, cache_gb for a tenth of the file, which is in the page cache at the beginning.
- `quasi_random_cold`: the same after posix_fadvise(POSIX_FADV_DONTNEED), so each byte comes from the disk.
- `random_cold` (bench.random_cold=1): random order from the disk, which quasi-random order is there to avoid.

`peak_resident_bytes`: the most of the file that was in memory (mincore), looked at twice a second; only of a cold file
is it what the loaders hold. Each epoch is checked: each sample once, each page by one rank but for those at the borders
of two. The file system must be one whose files can be dropped from memory, so not /dev/shm.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from runtime import preflight

preflight.check()

import ctypes
import json
import mmap
import multiprocessing
import os
import random
import time
from concurrent.futures import ProcessPoolExecutor, wait

import numpy as np
from fastargs import Config, Param, Section

import beton
from beton.errors import UserError
from beton.files import publish
from beton.sources.imagefolder import open_source
from runtime import machine
from runtime.config import BOOL, FLOAT, INT, PATH, between, parse, run
from runtime.outputs import check_file, make_folder
from runtime.profiling.runs import spread
from runtime.training.sections import WORKERS

_STAGES, _SHARE = "rrc(224)|flip|normalize", 0.1
_LIMIT = 600  # seconds after which ranks that wait for each other count as failed
_barrier = None  # of the ranks; in each of their processes


def declare() -> Config:
    """The section `bench`."""
    config = Config()
    Section("bench", "what to measure", config_descriptor=config).params(
        photos=Param(PATH, "a folder of class folders", required=True),
        work=Param(PATH, "a folder on the disk to be measured, for the .beton", required=True),
        out=Param(PATH, "the JSON to write", required=True),
        gb=Param(between(FLOAT, 0.001, 10_000), "GB of the .beton", default=1.5),
        ranks=Param(between(INT, 1, 64), "processes", default=4),
        batch_size=Param(between(INT, 1, 4096), "photos in a batch of a rank", default=16),
        workers=Param(WORKERS, "threads of each loader", default=1),
        rounds=Param(between(INT, 1, 1000), "epochs of each arm", default=3),
        random_cold=Param(BOOL, "measure random order from a cold file too", default=0),
    )
    return config


def main(argv: list[str]) -> None:
    """Write the file, measure, write the JSON, print its rows."""
    bench = parse(declare(), argv).bench
    check_file(Path(bench.out))
    photos = open_source(bench.photos, "train")
    make_folder(Path(bench.work))
    path = Path(bench.work) / f"cached_ranks-{os.getpid()}.beton"
    try:
        card = beton.write(Again(photos, bench.gb * 1e9), path, workers=2, write_mode="jpg", passthrough=True)
        rows = measure(path, bench)
    finally:
        for left in (path, path.with_name(f"{path.name}.json")):
            left.unlink(missing_ok=True)
    named = ("gb", "ranks", "batch_size", "workers", "rounds")
    results = {
        "title": "Ranks that read a file with the memory of a tenth of it",
        "machine": {**machine.facts(), "versions": machine.versions()},
        "settings": {name: getattr(bench, name) for name in named} | {"stages": _STAGES, "share": _SHARE},
        "file": {"bytes": card["bytes"], "samples": card["num_samples"]},
        "rows": rows,
    }
    publish(Path(bench.out), json.dumps(results, indent=1) + "\n")
    for found in rows:
        print(json.dumps(found))


class Again:
    """Photos of a source, the first again after the last one, up to so many bytes; their label is 0."""

    def __init__(self, source, size: float):
        sizes = [len(source.read(number)[0]) for number in range(len(source))]
        self._source, self._count = source, max(1, round(size / np.mean(sizes)))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        return self._source.read(index % len(self._source))[0], 0


def measure(path: Path, bench) -> list[dict]:
    """The rows: for each arm images a second of all ranks, CPU seconds an image, the peak of what is in memory."""
    arms = ["random", "quasi_random", "quasi_random_cold", *["random_cold"] * bench.random_cold]
    figures = {arm: [] for arm in arms}
    # What is compiled is compiled once, and then forked
    with beton.Loader(path, bench.batch_size, image=_STAGES, workers=1) as loader:
        next(loader.batches(0)), next(loader.batches(0))
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(bench.ranks, context, _begin, (context.Barrier(bench.ranks), bench.ranks)) as pool:
        for number in range(bench.rounds):
            for arm in random.Random(number).sample(arms, len(arms)):
                figures[arm].append(epoch(path, arm, number, pool, bench))
    rows = []
    for arm, found in figures.items():
        columns = {name: spread([figure[name] for figure in found]) for name in found[0]}
        relative = (
            columns["images_per_second"]["median"]
            / spread([figure["images_per_second"] for figure in figures["random"]])["median"]
        )
        rows.append({"arm": arm, **columns, "speed_of_random": relative})
    return rows


def epoch(path: Path, arm: str, number: int, pool, bench) -> dict:
    """An epoch of all ranks."""
    prepare(path, cold=arm.endswith("cold"))
    given = {"in_memory": arm.startswith("random")}
    if not given["in_memory"]:
        given["cache_gb"] = _SHARE * os.path.getsize(path) / 1e9
    ranks = [pool.submit(_epoch_of_rank, str(path), rank, number, given, bench) for rank in range(bench.ranks)]
    peak = 0
    while wait(ranks, 0.5).not_done:
        peak = max(peak, resident_bytes(path))
    found = [rank.result() for rank in ranks]
    samples = np.concatenate([of_rank["samples"] for of_rank in found])
    if not np.array_equal(np.sort(samples), np.arange(len(samples))):
        raise RuntimeError(f"{arm}: not each sample once")
    pages, window = None, found[0].get("pages_and_lanes")
    if window:
        pages = sum(of_rank["pages"] for of_rank in found)
        if pages > sum(window):
            raise RuntimeError(f"{arm}: {pages} pages of {window[0]} are read")
    seconds = max(of_rank["ended"] for of_rank in found) - min(of_rank["began"] for of_rank in found)
    return {
        "images_per_second": len(samples) / seconds,
        "cpu_seconds_per_image": sum(of_rank["cpu"] for of_rank in found) / len(samples),
        "seconds_to_first_batch": max(of_rank["first"] for of_rank in found),
        "pages_read": pages and pages / window[0],
        "peak_resident_bytes": peak,
        "share_resident": peak / os.path.getsize(path),
    }


def _begin(barrier, ranks: int) -> None:
    global _barrier
    _barrier, os.environ["LOCAL_WORLD_SIZE"] = barrier, str(ranks)


def _epoch_of_rank(path: str, rank: int, number: int, given: dict, bench) -> dict:
    with beton.Loader(
        path, bench.batch_size, image=_STAGES, label=None, workers=bench.workers, rank=rank, world_size=bench.ranks,
        with_indices=True, **given,
    ) as loader:  # fmt: skip
        _barrier.wait(_LIMIT)
        samples, began, cpu, first = [], time.monotonic(), time.process_time(), None
        for batch in loader.batches(number):
            first = first or time.monotonic() - began
            samples.append(batch.indices.numpy())
        samples, ended, cpu = np.concatenate(samples), time.monotonic(), time.process_time() - cpu
        facts = {"samples": samples, "began": began, "ended": ended, "cpu": cpu, "first": first}
        if loader.window is not None:
            pages = loader.pages()
            facts["pages"] = len(np.unique(pages.of_sample[samples]))
            facts["pages_and_lanes"] = pages.count, loader.window.lanes
        return facts


def prepare(path: Path, cold: bool) -> None:
    """Have the file in memory, or nothing of it. Raises UserError where it stays there."""
    with open(path, "rb") as file:
        if cold:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        else:
            while file.read(1 << 24):
                pass
    if cold and resident_bytes(path) > os.path.getsize(path) / 100:
        raise UserError(f"the file system of {path.parent} keeps its files in memory", "give bench.work on a disk")


def resident_bytes(path: Path) -> int:
    """How much of a file is in memory, by mincore."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)  # as ctypes wants it
    held = ctypes.c_char.from_buffer(mapped)
    found = np.zeros(-(-len(mapped) // mmap.PAGESIZE), np.uint8)
    failed = libc.mincore(ctypes.addressof(held), len(mapped), found.ctypes.data)
    del held
    mapped.close()
    if failed:
        raise OSError(ctypes.get_errno(), "mincore")
    return int((found & 1).sum()) * mmap.PAGESIZE


if __name__ == "__main__":
    run(main)
