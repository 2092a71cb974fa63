"""FFCV's two usual pipelines and a user's operation by beton.ffcv, beside beton.Loader and stock FFCV 1.0.2 -> JSON.

    python benchmarks/drop_in.py --bench.photos=FOLDER --bench.out=docs/drop_in.json

Epochs from memory on the CPU, in rounds: in each one all rows one after the other. Stock takes NormalizeImage before
ToTensor only. The first batch is that of a new process, from `import ffcv` on, with torch there already.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from runtime import preflight

preflight.check()

import importlib
import json
import subprocess
import tempfile
import time

import numpy as np
import torch
from fastargs import Config, Param, Section

import beton
from benchmarks.views import First, images_per_second
from beton.files import publish
from beton.sources import open_source
from runtime import machine
from runtime.config import INT, PATH, between, parse, run
from runtime.outputs import check_file
from runtime.profiling.runs import spread
from runtime.training.sections import WORKERS

ROOT = Path(__file__).resolve().parent.parent
_MEAN, _STD = np.array([123.7, 116.3, 103.5]), np.array([58.4, 57.1, 57.4])
_FILL = (125, 123, 114)
# The same by beton.Loader: for ffcv-imagenet's pipeline, and for FFCV's of CIFAR-10
_STAGES = {
    "imagenet": "rrc(224)|flip|normalize",
    "cifar": f"center(32, 1)|flip|translate(2, {_FILL})|cutout(4, {_FILL})|normalize",
}
_BATCH = {"imagenet": 64, "operation": 64, "cifar": 512}


def declare() -> Config:
    """The section `bench`."""
    config = Config()
    Section("bench", "how to measure", config_descriptor=config).params(
        photos=Param(PATH, "a folder with one folder of photos for each class", required=True),
        out=Param(PATH, "the JSON to write", required=True),
        rounds=Param(between(INT, 1, 1000), "measurements of each row", default=5),
        count=Param(between(INT, 64, 10**6), "photos, evenly from the folder", default=512),
        small=Param(between(INT, 512, 10**6), "pictures of 32 x 32, raw", default=10_000),
        workers=Param(WORKERS, "threads of each loader", default=2),
    )
    return config


def main(argv: list[str]) -> None:
    """Measure, write the JSON, print its rows."""
    bench = parse(declare(), argv).bench
    check_file(Path(bench.out))
    with tempfile.TemporaryDirectory() as folder:
        files = _write(Path(folder), bench)
        ways = {}
        for chain, file in files.items():
            if chain in _STAGES:
                stages = {"image": _STAGES[chain], "dtype": torch.float16}
                ways[chain, "beton.Loader"] = beton.Loader(file, _BATCH[chain], workers=bench.workers, **stages)
            for package in ("beton.ffcv", "ffcv"):
                ways[chain, package] = loader(package, chain, str(file), bench.workers)
        figures, cpu = ({key: [] for key in ways} for _ in range(2))
        for number in range(bench.rounds + 1):  # the first to compile
            for key, way in ways.items():
                torch.set_num_threads(bench.workers)  # stock sets it
                used = time.process_time()
                found = images_per_second(way)
                used = (time.process_time() - used) / (bench.small if key[0] == "cifar" else bench.count)
                if number:
                    figures[key].append(found)
                    cpu[key].append(1000 * used)
        rows = [
            {"chain": key[0], "by": key[1], "images_per_second": spread(found), "cpu_ms_an_image": spread(cpu[key])}
            for key, found in figures.items()
        ]
        for package in ("beton.ffcv", "ffcv"):
            seconds = [_first_batch(package, files["imagenet"], bench.workers) for _ in range(bench.rounds)]
            rows.append({"chain": "imagenet", "by": package, "first_batch_s": spread(seconds)})
    results = {
        "title": "FFCV's pipelines by beton.ffcv, by beton.Loader and by stock FFCV",
        "machine": {**machine.facts(), "versions": machine.versions()},
        "settings": {name: getattr(bench, name) for name in ("rounds", "count", "small", "workers")},
        "rows": rows,
    }
    publish(Path(bench.out), json.dumps(results, indent=1) + "\n")
    for row in rows:
        print(row)


def _write(folder: Path, bench) -> dict[str, Path]:
    """The file of each chain."""
    photos = First(open_source("imagefolder", bench.photos, "train"), bench.count)
    beton.write(photos, folder / "photos.beton", write_mode="jpg", max_resolution=500)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (bench.small, 32, 32, 3), np.uint8)
    beton.write([(picture, i % 10) for i, picture in enumerate(pictures)], folder / "small.beton", write_mode="raw")
    photos, small = folder / "photos.beton", folder / "small.beton"
    return {"imagenet": photos, "operation": photos, "cifar": small}


def loader(package: str, chain: str, path: str, workers: int):
    """A Loader as FFCV's users write it, of `package`: "beton.ffcv" or "ffcv"."""
    of = importlib.import_module
    t, d, load = of(f"{package}.transforms"), of(f"{package}.fields.decoders"), of(f"{package}.loader")
    normalize = t.NormalizeImage(_MEAN, _STD, np.float16)
    if chain == "cifar":
        image = [d.SimpleRGBImageDecoder(), t.RandomHorizontalFlip(), t.RandomTranslate(2, _FILL), t.Cutout(4, _FILL)]
    else:
        image = [d.RandomResizedCropRGBImageDecoder((224, 224)), t.RandomHorizontalFlip()]
    if chain == "operation":
        image.append(_invert(package))
    image += [normalize, t.ToTensor(), t.ToTorchImage()]
    pipelines = {"image": image, "label": [d.IntDecoder(), t.ToTensor(), t.Squeeze()]}
    order = load.OrderOption.RANDOM
    return load.Loader(path, _BATCH[chain], num_workers=workers, order=order, drop_last=False, pipelines=pipelines)


def _invert(package: str):
    """A user's operation: numba, image by image."""
    Operation = importlib.import_module(f"{package}.pipeline.operation").Operation
    AllocationQuery = importlib.import_module(f"{package}.pipeline.allocation_query").AllocationQuery
    Compiler = importlib.import_module(f"{package}.pipeline.compiler").Compiler

    class Invert(Operation):
        def generate_code(self):
            parallel_range = Compiler.get_iterator()

            def invert(images, target):
                for i in parallel_range(images.shape[0]):
                    target[i] = 255 - images[i]
                return target

            invert.is_parallel = True
            return invert

        def declare_state_and_memory(self, previous_state):
            return previous_state, AllocationQuery(previous_state.shape, previous_state.dtype)

    return Invert()


_FRESH = """
import sys, time
from benchmarks.drop_in import loader

started = time.perf_counter()
next(iter(loader(sys.argv[1], "imagenet", sys.argv[2], int(sys.argv[3]))))
print(time.perf_counter() - started, flush=True)
import os
os._exit(0)
"""


def _first_batch(package: str, path: Path, workers: int) -> float:
    """Seconds to the first batch in a new process."""
    command = [sys.executable, "-c", _FRESH, package, str(path), str(workers)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    run(main)
