"""json: anything that JSON can say, such as the annotations of an image."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from beton.format.fields.bytes import Bytes

_END = b"\0"  # FFCV's, which pads what it reads


@dataclass(frozen=True)
class Json(Bytes):
    """Objects of dicts, lists, strings, numbers, true, false and null; FFCV's JSONField.

    A batch of them is a list of N objects. As JSON has it, tuples come back as lists, and keys as strings.
    """

    type_names = {5: "json"}

    def to_bytes(self, value: Any) -> bytes:
        """JSON text and a zero byte. Raises TypeError or ValueError for what JSON cannot say."""
        return json.dumps(value).encode() + _END

    def of_bytes(self, content: bytes) -> Any:
        """The object. Raises ValueError where it is damaged."""
        text, end, _ = content.partition(_END)
        if not end:
            raise ValueError("the JSON text has no end")
        try:
            return json.loads(text)
        except RecursionError:
            raise ValueError("the JSON text is nested too deeply") from None


FIELD = Json
