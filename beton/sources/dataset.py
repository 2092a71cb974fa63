"""Any data set of Python: what has len() and [i]."""

from collections.abc import Mapping, Sequence
from typing import Any

from beton.errors import UserError


class DatasetSource:
    """A source of the samples of `dataset`: `dataset[i]` is a tuple with a value for each of `columns`, or a dict that
    has these keys, and where `whole` no others.

    `classes`: names of the classes; those of `dataset.classes` where none are given. Samples are read in
    processes: nothing says that such a data set may be used by several threads.
    """

    processes = True

    def __init__(self, dataset: Any, columns: Sequence[str], classes: Sequence[str] | None = None, whole: bool = False):
        names = getattr(dataset, "classes", None) if classes is None else classes
        if names is not None and not all(isinstance(name, str) for name in names):
            if classes is not None:
                raise UserError("`classes` are not all strings", "give their names")
            names = None  # the data set means something else by it
        self._dataset, self._columns, self._whole = dataset, columns, whole
        self.classes = None if names is None else list(names)

    def __len__(self) -> int:
        return len(self._dataset)

    def name(self, index: int) -> str:
        """For messages."""
        return f"sample {index}"

    def identity(self, index: int) -> str:
        """What a resumed write must find again; the values themselves are not looked at."""
        return self.name(index)

    def read(self, index: int) -> tuple:
        """The values of a sample. Raises what the data set raises, and TypeError for what is no such tuple."""
        values = self._dataset[index]
        if isinstance(values, Mapping):
            lacks = [name for name in self._columns if name not in values]
            more = [name for name in values if name not in self._columns] if self._whole else []
            if lacks or more:
                what = f"has no {lacks[0]!r}" if lacks else f"has {more[0]!r} too"
                raise TypeError(f"dataset[{index}] {what}; the fields are {', '.join(self._columns)}")
            return tuple(values[name] for name in self._columns)
        if not isinstance(values, (tuple, list)) or len(values) != len(self._columns):
            what = f"{len(values)} values" if isinstance(values, (tuple, list)) else type(values).__name__
            raise TypeError(f"dataset[{index}] is {what} instead of a tuple ({', '.join(self._columns)})")
        return tuple(values)
