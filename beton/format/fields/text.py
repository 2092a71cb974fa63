"""text: a string of any length, such as a caption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from beton.format.fields.bytes import Bytes


@dataclass(frozen=True)
class Text(Bytes):
    """Strings, stored as UTF-8. A batch of them is a list of N strings.

    FFCV has no such field: it reads the same file and finds bytes (the column's descriptor says what else they are).
    """

    type_names = {3: "text"}
    marker = b"text\0"

    def to_bytes(self, value: Any) -> bytes:
        """UTF-8. Raises TypeError for what is no string, ValueError for half a surrogate pair."""
        if not isinstance(value, str):
            raise TypeError(f"{type(value).__name__} instead of text")
        return value.encode()

    def of_bytes(self, content: bytes) -> str:
        """The string. Raises ValueError where it is not UTF-8."""
        return content.decode()


FIELD = Text
