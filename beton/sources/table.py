"""A table of photos that may have several classes each: multi-label targets.

`train.csv` and `val.csv` in a folder, or a CSV file. The first column is the path of the photo, from the table's
folder. Then either a column for each class, headed by its name, with numbers from 0 to 1; or one column with the names
of the photo's classes, with `|` between them. For the second form `classes.txt` beside it, one name a line, says the
order of the classes, and those that no photo of the split has; without it they are sorted by name.
"""

import csv
import os
from pathlib import Path

import numpy as np

from beton.errors import UserError
from beton.format.fields.array import Array

_CLASSES = "classes.txt"


class Table:
    """The photos of a table, in its order; labels are float32, C."""

    def __init__(self, path: Path):
        self._folder, rows = path.parent, _rows(path)
        header, rows = rows[0], rows[1:]
        if len(header) < 2 or not rows:
            raise UserError(f"{path} has no photos with classes", "give a header, and a row for each photo")
        for line, row in enumerate(rows, 2):
            if len(row) != len(header):
                what = f"line {line} of {path} has {len(row)} columns, and its header {len(header)}"
                raise UserError(what, "correct it")
        self._names = [row[0] for row in rows]
        if len(header) == 2 and not all(_is_number(row[1]) for row in rows):
            self.classes, self._labels = _of_names(path, [row[1] for row in rows])
        else:
            self.classes, self._labels = header[1:], _of_numbers(path, rows)
        self.fields = {"image": "image", "label": Array("float32", (len(self.classes),))}

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """The photo's path."""
        return str(self._folder / self._names[index])

    def stored_name(self, index: int) -> str:
        """The path as the table has it."""
        return self._names[index]

    def identity(self, index: int) -> str:
        """Path and labels."""
        return f"{self.name(index)} {' '.join(map(str, self._labels[index]))}"

    def read(self, index: int) -> tuple[bytes, np.ndarray]:
        """The photo's file, as it is, and its labels; raises OSError if it cannot be read."""
        return Path(self.name(index)).read_bytes(), self._labels[index]


def _rows(path: Path) -> list[list[str]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path} ({error})", "give a CSV file") from None
    return rows or [[]]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _of_numbers(path: Path, rows: list[list[str]]) -> np.ndarray:
    labels = np.empty((len(rows), len(rows[0]) - 1), np.float32)
    for number, row in enumerate(rows):
        values = [float(text) if _is_number(text) else -1.0 for text in row[1:]]
        if not all(0 <= value <= 1 for value in values):
            raise UserError(f"line {number + 2} of {path} has labels that are not from 0 to 1", "correct it")
        labels[number] = values
    return labels


def _of_names(path: Path, texts: list[str]) -> tuple[list[str], np.ndarray]:
    found = [[name.strip() for name in text.split("|") if name.strip()] for text in texts]
    beside = path.parent / _CLASSES
    try:
        classes = beside.read_text().splitlines() if beside.is_file() else sorted(set().union(*found))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {beside} ({error})", "correct or remove it") from None
    number = {name: i for i, name in enumerate(classes)}
    labels = np.zeros((len(found), len(classes)), np.float32)
    for row, names in enumerate(found):
        for name in names:
            if name not in number:
                raise UserError(f"line {row + 2} of {path} has the class '{name}', which {beside} lacks", "add it")
            labels[row, number[name]] = 1
    if not classes:
        raise UserError(f"{path} has no classes", "name some")
    return classes, labels


def open_source(data_dir: str | None, split: str, seed: int = 0, count: int | None = None) -> Table:
    """The photos of `data_dir`, a CSV file or a folder with train.csv and val.csv."""
    if data_dir is None or not os.path.exists(data_dir):
        raise UserError(f"there is no table {data_dir}", "give a CSV file, or the folder of train.csv and val.csv")
    path = Path(data_dir)
    return Table(path / f"{split}.csv" if path.is_dir() else path)


SOURCE = open_source
