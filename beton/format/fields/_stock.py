"""FFCV's other fields: a file with them opens, and their values are not read yet."""

import numpy as np

from beton.format.fields.base import Field

_POINTER = np.dtype([("ptr", "<u8"), ("size", "<u8")])


def _field(type_id: int, name: str, record: np.dtype | str) -> Field:
    return type(name, (Field,), {"type_names": {type_id: name}, "record": np.dtype(record)})()


STOCK_FIELDS = [
    _field(0, "float", "<f8"),
    _field(3, "bytes", _POINTER),
    _field(4, "ndarray", "<u8"),
    _field(5, "json", _POINTER),
    _field(6, "torch_tensor", "<u8"),
]
