"""torchvision v2's transforms as callables in the loader's threads, and in a DataLoader with as many workers -> JSON.

    python benchmarks/callables.py --bench.photos=FOLDER --bench.out=docs/callables.json

Both read the same JPEGs (longest side 500 px, quality 90) from memory, and crop to 224 pixels: the loader by its own
stages, the DataLoader by torchvision.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from runtime import preflight

preflight.check()

import io
import json
import tempfile

from fastargs import Config, Param, Section
from PIL import Image
from torch.utils.data import DataLoader

import beton
from benchmarks.views import First, images_per_second
from beton.files import publish
from beton.sources import open_source
from runtime import machine
from runtime.config import INT, PATH, between, parse, run
from runtime.outputs import check_file
from runtime.profiling.runs import spread
from runtime.training.sections import WORKERS

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
    from torchvision.transforms import v2

    bench = parse(declare(), argv).bench
    check_file(Path(bench.out))
    calls = {
        "ColorJitter": v2.ColorJitter(0.4, 0.4, 0.4, 0.1),
        "RandAugment": v2.RandAugment(),
        "nothing": v2.Identity(),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photos.beton"
        photos = First(open_source("imagefolder", bench.photos, "train"), bench.count)
        beton.write(photos, path, write_mode="jpg", max_resolution=500)
        ways = {}
        for name, call in calls.items():
            stages = ["rrc(224)|flip", call, "normalize"]
            ways[name, "threads"] = beton.Loader(path, _BATCH, image=stages, workers=bench.workers)
            kept = {"shuffle": True, "num_workers": bench.workers, "persistent_workers": True}
            ways[name, "DataLoader"] = DataLoader(_Jpegs(path, call), _BATCH, **kept)
        figures = {key: [] for key in ways}
        # Two are not counted: one to compile and start workers, one as memory shared with forked workers is copied then
        for number in range(-2, bench.rounds):
            for key, loader in ways.items():
                found = images_per_second(loader)
                figures[key] += [found] * (number >= 0)
    results = {
        "title": "torchvision's transforms in the loader's threads and in a DataLoader",
        "machine": {**machine.facts(), "versions": machine.versions()},
        "settings": {name: getattr(bench, name) for name in ("rounds", "count", "workers")},
        "rows": [{"callable": c, "in": way, "images_per_second": spread(f)} for (c, way), f in figures.items()],
    }
    publish(Path(bench.out), json.dumps(results, indent=1) + "\n")
    for row in results["rows"]:
        print(row)


class _Jpegs:
    """JPEGs in memory, through torchvision v2."""

    def __init__(self, path: Path, call):
        import torch
        from torchvision.transforms import v2

        with beton.open(path) as file:
            self._files, self._labels = [file.payload(i, "image") for i in range(len(file))], file.labels.tolist()
        tail = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
        tail.append(v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        self._transform = v2.Compose([v2.RandomResizedCrop(224), v2.RandomHorizontalFlip(), call, *tail])

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple:
        image = Image.open(io.BytesIO(self._files[index])).convert("RGB")
        return self._transform(image), self._labels[index]


if __name__ == "__main__":
    run(main)
