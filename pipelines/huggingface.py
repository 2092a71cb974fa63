"""Hugging Face datasets: photos in Arrow files, decoded by Pillow, torchvision's transforms, a DataLoader."""

from pathlib import Path

from beton.format.photo_files import as_rgb
from beton.loading.damage import RAISE
from pipelines._peer import check, read_classes, write_classes
from pipelines.torch import Torch


class _Rows:
    """A datasets.Dataset as the standard loader reads its samples: its own decoding is a part of reading."""

    def __init__(self, folder: Path, classes: list[str]):
        import datasets

        self._rows, self.classes = datasets.load_from_disk(str(folder)), classes

    def __len__(self) -> int:
        return len(self._rows)

    def name(self, index: int) -> str:
        return f"row {index}"

    def read(self, index: int) -> tuple:
        row = self._rows[index]
        return row["image"], row["label"]


class HuggingFace(Torch):
    """torch's DataLoader on a datasets.Dataset."""

    needs = {"datasets": "datasets", "torchvision": "torchvision"}
    reads = "huggingface"
    on_error = (RAISE,)
    decode = staticmethod(as_rgb)

    @classmethod
    def make(cls, photos, folder):
        """As load_dataset("imagefolder") makes it, saved to disk with the photos' bytes in it."""
        import datasets

        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=photos.classes)})

        def rows():
            for index in range(len(photos)):
                data, label = photos.read(index)
                yield {"image": {"bytes": data, "path": None}, "label": label}

        made = datasets.Dataset.from_generator(rows, features=features, cache_dir=str(folder / ".making"))
        made.save_to_disk(str(folder))
        del made
        write_classes(folder, photos)

    def source(self):
        """The rows; raises UserError where make() has not been."""
        check("huggingface", self.task)
        return _Rows(Path(self.task.dataset), read_classes(Path(self.task.dataset), self.reads)[1])


PIPELINE = HuggingFace
