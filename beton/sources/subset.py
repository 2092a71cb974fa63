"""Some samples of a source."""

from collections.abc import Sequence
from typing import Any

from beton.errors import UserError


class Subset:
    """The samples `indices` of a source, in that order; a source like it."""

    def __init__(self, source: Any, indices: Sequence[int]):
        self._source, self._indices = source, indices
        for name in ("read", "name", "identity", "stored_name", "label"):
            if hasattr(source, name):
                setattr(self, name, self._of_index(getattr(source, name)))

    def _of_index(self, method):
        return lambda index: method(int(self._indices[index]))

    def __len__(self) -> int:
        return len(self._indices)

    def __getattr__(self, name: str) -> Any:
        """`classes`, `fields`, ... are those of the source."""
        return getattr(self._source, name)


class Part(Subset):
    """Part `number`, from 1, of `of` parts of a source, which have the same number of samples or one more.

    `whole`: samples of the source; `start`: the first of them that the part has. Part 1 has the first, and so on.
    """

    def __init__(self, source: Any, number: int, of: int):
        self.number, self.of, self.whole = number, of, len(source)
        self.start = self.whole * (number - 1) // of
        super().__init__(source, range(self.start, self.whole * number // of))
        self.source = source


class OfClasses:
    """The samples of some classes of a source, in its order: a source whose labels are indices into these classes,
    which keep theirs.

    Raises UserError for names that are none of its classes, and for a source that does not know its labels.
    """

    def __init__(self, source: Any, names: Sequence[str]):
        if source.classes is None or not hasattr(source, "label"):
            raise UserError("the source does not name the classes of its samples", "leave out `classes`")
        unknown = [name for name in names if name not in source.classes]
        if unknown:
            some = ", ".join(source.classes[:10]) + (", ..." if len(source.classes) > 10 else "")
            raise UserError(f"the source has no class '{unknown[0]}'", f"give some of {some}")
        self.classes = [name for name in source.classes if name in set(names)]
        self._new = {label: self.classes.index(n) for label, n in enumerate(source.classes) if n in self.classes}
        self._place = list(source.fields).index("label")
        self._samples = Subset(source, [i for i in range(len(source)) if source.label(i) in self._new])

    def __len__(self) -> int:
        return len(self._samples)

    def label(self, index: int) -> int:
        """The sample's class."""
        return self._new[self._samples.label(index)]

    def identity(self, index: int) -> str:
        """Label, and the identity in the source."""
        return f"{self.label(index)} {self._samples.identity(index)}"

    def read(self, index: int) -> tuple:
        """The values, the label another one."""
        values = list(self._samples.read(index))
        values[self._place] = self.label(index)
        return tuple(values)

    def __getattr__(self, name: str) -> Any:
        """`fields`, name(), ... are those of the source."""
        return getattr(self._samples, name)
