"""The records of FFCV's file format, and the field of each type."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from beton.errors import UserError
from beton.ffcv.fields import (
    BytesField,
    FloatField,
    IntField,
    JSONField,
    NDArrayField,
    RGBImageField,
    TorchTensorField,
)
from beton.ffcv.fields.base import Field
from beton.format.records import ALLOCATION as ALLOC_TABLE_TYPE
from beton.format.records import DESCRIPTOR as FieldDescType
from beton.format.records import HEADER as HeaderType
from beton.format.records import VERSION as CURRENT_VERSION
from beton.format.records import metadata_record

__all__ = ["ALLOC_TABLE_TYPE", "CURRENT_VERSION", "CUSTOM", "TYPE_ID_HANDLER", "FieldDescType", "HeaderType"]
__all__ += ["get_handlers", "get_metadata_type"]

CUSTOM = 255  # the number of fields of the user's own
TYPE_ID_HANDLER = {
    CUSTOM: None,
    0: FloatField,
    1: IntField,
    2: RGBImageField,
    3: BytesField,
    4: NDArrayField,
    5: JSONField,
    6: TorchTensorField,
    7: RGBImageField,  # with photos in blocks, which FFCV cannot decode
}


def get_handlers(field_descriptors: np.ndarray) -> list[Field | None]:
    """The field of each descriptor, None for those of the user's own. Raises UserError."""
    found = []
    for described in field_descriptors:
        number = int(described["type_id"])
        if number not in TYPE_ID_HANDLER:
            name = bytes(described["name"]).split(b"\0")[0].decode("ascii", "replace")
            what = f"the field '{name}' is of the type {number}, which FFCV has not"
            raise UserError(what, "load the file by beton.Loader, or give `custom_fields` a class for it")
        handler = TYPE_ID_HANDLER[number]
        found.append(None if handler is None else handler.from_binary(described["arguments"]))
    return found


def get_metadata_type(handlers: Sequence[Field]) -> np.dtype:
    """The record of a sample with these fields: f0, f1, ..."""
    return metadata_record([handler.metadata_type for handler in handlers])
