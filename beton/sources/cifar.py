"""CIFAR-10, from the files of its Python version (cifar-10-batches-py), which must be there already."""

import numpy as np

from beton.errors import UserError


class Cifar:
    """The 32 x 32 photos of CIFAR-10 in the order of its files."""

    fields = {"image": "image", "label": "int"}

    def __init__(self, folder: str, train: bool):
        try:
            from torchvision.datasets import CIFAR10
        except ImportError:
            raise UserError("torchvision, which reads CIFAR-10, is not installed", "pip install torchvision") from None
        try:
            self._data = CIFAR10(folder, train=train, download=False)
        except RuntimeError:
            raise UserError(
                f"{folder} has no complete cifar-10-batches-py",
                "unpack cifar-10-python.tar.gz there; nothing is downloaded here",
            ) from None
        self.classes = self._data.classes

    def __len__(self) -> int:
        return len(self._data)

    def name(self, index: int) -> str:
        """The photo's number in the data set."""
        return f"CIFAR-10 photo {index}"

    def identity(self, index: int) -> str:
        """Label and name."""
        return f"{self._data.targets[index]} {self.name(index)}"

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Pixels (uint8, 32 x 32 x 3) and label."""
        return self._data.data[index], self._data.targets[index]


def open_source(data_dir: str | None, split: str, seed: int = 0, count: int | None = None) -> Cifar:
    """CIFAR-10 below `data_dir`; `split` train or val (its test batch)."""
    return Cifar(data_dir or ".", split == "train")


SOURCE = open_source
