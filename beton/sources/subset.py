"""Some samples of a source."""

from collections.abc import Sequence
from typing import Any


class Subset:
    """The samples `indices` of a source, in that order; a source like it."""

    def __init__(self, source: Any, indices: Sequence[int]):
        self._source, self._indices = source, indices
        for name in ("read", "name", "identity", "stored_name", "label"):
            if hasattr(source, name):
                setattr(self, name, self._of_index(getattr(source, name)))

    def _of_index(self, method):
        return lambda index: method(self._indices[index])

    def __len__(self) -> int:
        return len(self._indices)

    def __getattr__(self, name: str) -> Any:
        """`classes`, `fields`, ... are those of the source."""
        return getattr(self._source, name)
