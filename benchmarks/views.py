"""Multi-crop (2 x 224 + 6 x 96 px) from JPEGs: one decode for all views, one for each, and torchvision -> JSON.

    python benchmarks/views.py --bench.photos=FOLDER --bench.out=docs/views.json

All three read the same JPEGs (longest side 500 px, quality 90) from memory, with as many workers: the first two from a
.beton, torchvision as DINO and SwAV do it, in a DataLoader whose workers decode a photo once and crop it eight times.
Restart markers, which the writer adds, let a view be decoded without most of the rest of the photo; plain JPEGs, such
as those that passthrough keeps, are decoded from their beginning.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from runtime import preflight

preflight.check()

import io
import json
import tempfile
import time

import torch
from fastargs import Config, Param, Section
from PIL import Image
from torch.utils.data import DataLoader

import beton
from beton.files import publish
from beton.sources import open_source
from runtime import machine
from runtime.config import INT, PATH, between, parse, run
from runtime.outputs import check_file
from runtime.profiling.runs import spread
from runtime.training.sections import WORKERS

_VIEWS = {
    "global": ("rrc(224, scale=(0.4, 1))|flip|normalize", 2),
    "local": ("rrc(96, scale=(0.05, 0.4))|flip|normalize", 6),
}
_BATCH = 64


def declare() -> Config:
    """The section `bench`."""
    config = Config()
    Section("bench", "how to measure", config_descriptor=config).params(
        photos=Param(PATH, "a folder with one folder of photos for each class", required=True),
        out=Param(PATH, "the JSON to write", required=True),
        rounds=Param(between(INT, 1, 1000), "measurements of each row", default=5),
        count=Param(between(INT, 64, 10**6), "photos, evenly from the folder", default=512),
        workers=Param(WORKERS, "threads of the loader, processes of the DataLoader", default=2),
    )
    return config


def main(argv: list[str]) -> None:
    """Measure, write the JSON, print its rows."""
    bench = parse(declare(), argv).bench
    check_file(Path(bench.out))
    with tempfile.TemporaryDirectory() as folder:
        photos, ways = First(open_source("imagefolder", bench.photos, "train"), bench.count), {}
        for kind, markers in (("with restart markers", True), ("plain", False)):
            path = Path(folder) / f"{kind}.beton"
            beton.write(photos, path, write_mode="jpg", max_resolution=500, restart_markers=markers)
            ways[kind, "views"] = beton.Loader(path, _BATCH, views=_VIEWS, workers=bench.workers)
            ways[kind, "one decode a view"] = _OneByOne(path, bench.workers)
            ways[kind, "torchvision"] = torchvision_loader(path, bench.workers)
        figures = {name: [] for name in ways}
        # Two are not counted: one to compile and start workers, one as memory shared with forked workers is copied then
        for number in range(-2, bench.rounds):
            for name, loader in ways.items():
                found = images_per_second(loader)
                figures[name] += [found] * (number >= 0)
    results = {
        "title": "Two views of 224 and six of 96 pixels of each photo, from JPEG",
        "machine": {**machine.facts(), "versions": machine.versions()},
        "settings": {name: getattr(bench, name) for name in ("rounds", "count", "workers")} | {"views": _VIEWS},
        "rows": [{"jpegs": kind, "way": w, "photos_per_second": spread(f)} for (kind, w), f in figures.items()],
    }
    publish(Path(bench.out), json.dumps(results, indent=1) + "\n")
    for row in results["rows"]:
        print(row)


def images_per_second(loader) -> float:
    """Photos a second of an epoch."""
    started, photos = time.perf_counter(), 0
    for batch in loader:
        photos += len(batch[-1])
    return photos / (time.perf_counter() - started)


class First:
    """So many photos of a source, evenly from it, with their labels."""

    def __init__(self, source, count: int):
        self._source, self._count = source, min(count, len(source))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        return self._source.read(index * len(self._source) // self._count)


class _OneByOne:
    """The same views, each read as an epoch of its own; the labels of the last one are handed out."""

    def __init__(self, path: Path, workers: int):
        given = [stages for stages, count in _VIEWS.values() for _ in range(count)]
        self._loaders = [beton.Loader(path, _BATCH, image=stages, workers=workers) for stages in given]

    def __iter__(self):
        for loader in self._loaders[:-1]:
            for _ in loader:
                pass
        yield from self._loaders[-1]


class _Jpegs:
    """JPEGs in memory, decoded once and cropped by torchvision."""

    def __init__(self, path: Path):
        from torchvision import transforms

        with beton.open(path) as file:
            self._files, self._labels = [file.payload(i, "image") for i in range(len(file))], file.labels.tolist()
        tail = [transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        tail.append(transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        large = transforms.Compose([transforms.RandomResizedCrop(224, (0.4, 1)), *tail])
        small = transforms.Compose([transforms.RandomResizedCrop(96, (0.05, 0.4)), *tail])
        self._transforms = [large] * 2 + [small] * 6

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[list[torch.Tensor], int]:
        image = Image.open(io.BytesIO(self._files[index])).convert("RGB")
        return [transform(image) for transform in self._transforms], self._labels[index]


def torchvision_loader(path: Path, workers: int) -> DataLoader:
    """A DataLoader of the views and the labels."""
    return DataLoader(_Jpegs(path), _BATCH, shuffle=True, num_workers=workers, persistent_workers=True)


if __name__ == "__main__":
    run(main)
