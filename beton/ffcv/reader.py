"""FFCV's Reader: the tables of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from beton.errors import UserError
from beton.ffcv.custom import Custom
from beton.ffcv.fields.base import Field
from beton.ffcv.types import ALLOC_TABLE_TYPE, FieldDescType, HeaderType, get_handlers, get_metadata_type
from beton.ffcv.utils import decode_null_terminated_string
from beton.format.file import BetonFile


class MissingField(UserError, ValueError):
    """A field of the user's own without its class; FFCV's code expects a ValueError."""


class Reader:
    """The tables of the file `fname`; `custom_handlers` are the classes of users' own fields by name.

    `num_samples`, `page_size`, `num_fields`, `header`; `field_descriptors`, `field_names`; `handlers`, the Field of
    each name; `metadata`, a record f0, f1, ... of each sample; `alloc_table`, sample, address and size of each piece
    of memory. Raises UserError for what is no complete file.
    """

    def __init__(self, fname: str, custom_handlers: Mapping[str, type[Field]] | None = None):
        self._fname, self._custom_handlers = str(fname), dict(custom_handlers or {})
        self.read_header()
        self.read_field_descriptors()
        with self.open() as file:  # whose reader looks whether all of it can be true
            self.num_samples, self.page_size = file.num_samples, file.page_size
        self.read_metadata()
        self.read_allocation_table()

    @property
    def file_name(self) -> str:
        """The path."""
        return self._fname

    def open(self) -> BetonFile:
        """The file by the library's reader."""
        custom = {
            name: Custom(handler, int(described["type_id"]))
            for (name, handler), described in zip(self.handlers.items(), self.field_descriptors, strict=True)
            if name in self._custom_handlers
        }
        return BetonFile(self._fname, custom=custom)

    def read_header(self) -> None:
        """Read the header."""
        try:
            found = self._read(HeaderType, 0, 1)
        except FileNotFoundError:
            raise UserError(f"there is no file {self._fname}", "give the path of a .beton, or write one") from None
        except OSError as error:
            raise UserError(f"cannot read {self._fname} ({error.strerror or error})", "check the path") from None
        if not len(found):
            raise UserError(f"{self._fname} is not a complete .beton file (it is too short)", "write it again")
        self.header = found[0]
        self.num_fields = int(self.header["num_fields"])

    def read_field_descriptors(self) -> None:
        """Read which fields it has."""
        self.field_descriptors = self._read(FieldDescType, HeaderType.itemsize, self.num_fields)
        self.field_names = [_name(described) for described in self.field_descriptors]
        known = [described for described, name in self._described() if name not in self._custom_handlers]
        handlers = iter(get_handlers(known))
        self.handlers = {}
        for described, name in self._described():
            own = self._custom_handlers.get(name)
            self.handlers[name] = own.from_binary(described["arguments"]) if own else next(handlers)
            if self.handlers[name] is None:
                what = f"'{name}' of {self._fname} is a field of a class of its own"
                raise MissingField(what, f"give it: custom_fields={{'{name}': ...}}")
        self.metadata_type = get_metadata_type(list(self.handlers.values()))

    def read_metadata(self) -> None:
        """Read the samples' records."""
        offset = HeaderType.itemsize + self.field_descriptors.nbytes
        self.metadata = self._read(self.metadata_type, offset, self.num_samples)

    def read_allocation_table(self) -> None:
        """Read where the samples' memory lies."""
        self.alloc_table = self._read(ALLOC_TABLE_TYPE, int(self.header["alloc_table_ptr"]), -1)

    def _described(self) -> Any:
        return zip(self.field_descriptors, self.field_names, strict=True)

    def _read(self, dtype: np.dtype, offset: int, count: int) -> np.ndarray:
        found = np.fromfile(self._fname, dtype, count, offset=offset)
        found.setflags(write=False)
        return found


def _name(described: np.void) -> str:
    try:
        return decode_null_terminated_string(described["name"])
    except UnicodeDecodeError:
        raise UserError("the name of a field is damaged", "write the dataset again") from None
