"""What JSON can say."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from beton.ffcv.fields.base import Field
from beton.ffcv.fields.bytes import BytesField

ENCODING, SEPARATOR = "utf8", "\0"


class JSONField(BytesField):
    """Objects of dicts, lists, strings, numbers, true, false and null. A batch has their bytes: see unpack()."""

    @staticmethod
    def from_binary(binary: np.ndarray) -> Field:
        """See Field."""
        return JSONField()

    def encode(self, destination: np.ndarray, field: Any, malloc: Callable) -> None:
        """JSON text and a zero byte."""
        super().encode(destination, (json.dumps(field) + SEPARATOR).encode(ENCODING), malloc)

    @staticmethod
    def unpack(batch: torch.Tensor | np.ndarray) -> Any:
        """The objects of a batch (uint8, N x bytes) as a list, or that of one sample (bytes)."""
        rows = batch.cpu().numpy() if isinstance(batch, torch.Tensor) else np.asarray(batch)
        if rows.ndim == 1:
            return _object(rows)
        return [_object(row) for row in rows]


def _object(row: np.ndarray) -> Any:
    text, end, _ = row.tobytes().partition(SEPARATOR.encode())
    if not end:
        raise ValueError("the JSON text has no end: is this a batch of a JSONField?")
    return json.loads(text.decode(ENCODING))
