"""torchvision's classification sets by name, e.g. `torchvision:Flowers102`; their files must be there already."""

import inspect
from contextlib import suppress
from typing import Any

from beton import system
from beton.errors import UserError
from beton.sources.dataset import DatasetSource

# What the sets call their splits; many have no validation split, but one for tests
_SPLITS = {"train": ("train", "trainval", "train-standard"), "val": ("val", "valid", "validation", "test")}


class TorchvisionSet(DatasetSource):
    """A data set of torchvision as a source. Sets of class folders give the files as they are, others the pixels."""

    fields = {"image": "image", "label": "int"}

    def __init__(self, dataset: Any, name: str):
        from torchvision.datasets import DatasetFolder

        classes = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
        super().__init__(dataset, ("image", "label"), _texts(classes))
        self._called, self._samples = name, None
        if isinstance(dataset, DatasetFolder):
            dataset.loader, self._samples = system.read_file, dataset.samples
            self.processes = False  # they read files

    def name(self, index: int) -> str:
        """The path of a photo where it is known, else its number."""
        return self._samples[index][0] if self._samples else f"{self._called} photo {index}"

    def identity(self, index: int) -> str:
        """Label and path where they are known without reading the photo."""
        return f"{self._samples[index][1]} {self.name(index)}" if self._samples else self.name(index)


def _texts(classes: Any) -> list[str] | None:
    """Names of classes; where a class has several (ImageNet), all of them."""
    if classes is None:
        return None
    return [", ".join(name) if isinstance(name, (tuple, list)) else str(name) for name in classes]


def _opened(kind: type, folder: str, split: str) -> Any:
    """The split of a set in a folder: the first that it has, in the order of _SPLITS."""
    options = inspect.signature(kind).parameters
    if "split" in options:
        choices = [{"split": name} for name in _SPLITS[split]]
    elif "train" in options:
        choices = [{"train": split == "train"}]
    else:
        choices = [{}]
    for choice in choices[:-1]:
        with suppress(ValueError):  # for an unknown split, before anything is looked for
            return kind(folder, **choice)
    return kind(folder, **choices[-1])


def open_source(
    data_dir: str | None, split: str, seed: int = 0, count: int | None = None, of: str = ""
) -> TorchvisionSet:
    """The split ('train' or 'val') of torchvision's set `of` in the folder `data_dir`, which is its `root`."""
    try:
        import torchvision.datasets as sets
    except ImportError:
        raise UserError("torchvision, which reads the set, is not installed", "pip install torchvision") from None
    kind = getattr(sets, of, None)
    if not inspect.isclass(kind) or not issubclass(kind, sets.VisionDataset):
        what = f"torchvision has no data set '{of}'" if of else "it is not said which of torchvision's sets is meant"
        raise UserError(what, "give torchvision:NAME, e.g. torchvision:Flowers102")
    if split not in _SPLITS:
        raise UserError(f"unknown split '{split}'", f"choose one of {', '.join(_SPLITS)}")
    try:
        return TorchvisionSet(_opened(kind, data_dir or ".", split), of)
    except (RuntimeError, OSError, ValueError, TypeError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        to_do = f"fetch it: python -c \"import torchvision.datasets as d; d.{of}('{data_dir or '.'}', download=True)\""
        raise UserError(f"cannot open {of} in {data_dir or '.'} ({why})", to_do) from None


SOURCE = open_source
