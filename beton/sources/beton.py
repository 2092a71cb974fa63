"""A .beton that is there already, to be written with other parameters; what they do not change is taken over."""

from dataclasses import fields as options_of
from typing import Any

from beton.errors import DamagedSample, UserError
from beton.format.fields.base import Field
from beton.format.fields.image import Image
from beton.format.file import BetonFile
from beton.format.joined import open_beton
from beton.format.parts import of_the_write
from beton.format.stored import Stored
from beton.format.tables import Column


class BetonSource:
    """The samples of an open file, in its order.

    `made`: a field for each column, for a file with all values as they are, whose `parameters` are then those of this
    one. Without, images are of the kind "image", whose options are the writer's.
    """

    def __init__(self, file: BetonFile, made: dict[str, Field] | None = None):
        columns = file.columns.values()
        self._file, self._made = file, made or {column.name: column.field for column in columns}
        self._written_with = {column.name: _written_with(file, column.name, column.field) for column in columns}
        self._passed = file.card is None or bool(file.card.get("passed_through"))
        self.classes, self.fields = file.classes, dict(self._made)
        if made is not None:
            self.parameters = of_the_write(file.card or {})
        else:
            self.fields |= {column.name: "image" for column in columns if isinstance(column.field, Image)}
        if file.labels is not None:
            self.label = lambda index: int(file.labels[index])
        if file.names is not None:
            self.stored_name = file.names.__getitem__

    def __len__(self) -> int:
        return len(self._file)

    def name(self, index: int) -> str:
        """Number and file."""
        return f"sample {index} of {self._file.path}"

    def identity(self, index: int) -> str:
        """Label, name and checksum, as far as there are any."""
        file = self._file
        about = [known[index] for known in (file.labels, file.names, file.checksums) if known is not None]
        return f"{self.name(index)} {' '.join(map(str, about))}"

    def read(self, index: int) -> tuple[Any, ...]:
        """The values as they are stored; raises OSError where the sample's checksum differs."""
        try:
            payloads = self._file.verified(index)
        except DamagedSample as error:
            raise OSError(error.why) from None
        return tuple(self._stored(index, column, payloads.get(column.name)) for column in self._file.columns.values())

    def _stored(self, index: int, column: Column, payload: bytes | None) -> Stored:
        name, record = column.name, column.records[index]
        passed = self._passed and isinstance(column.field, Image) and column.field.choice_of(record) == "jpg"
        return Stored(self._made[name], record, payload, self._written_with[name], passed)


def as_it_is(file: BetonFile) -> BetonSource:
    """A source whose fields take over every value as it is stored."""
    made = {name: _written_with(file, name, column.field) or column.field for name, column in file.columns.items()}
    return BetonSource(file, made)


def _written_with(file: BetonFile, name: str, field: Field) -> Field | None:
    """The field with the options that the card has for a column of images; None where it has not all of them."""
    given = (file.card or {}).get("parameters")
    if not isinstance(field, Image) or not isinstance(given, dict):
        return None
    # Where several columns have an option, the name of each is in front
    found = {option.name: given.get(f"{name}.{option.name}", given.get(option.name)) for option in options_of(field)}
    try:
        return Image(**found)
    except (UserError, TypeError):
        return None


def open_source(data_dir: str | None, split: str, seed: int = 0, count: int | None = None) -> BetonSource:
    """The samples of the .beton `data_dir`, or of several (a pattern); `split` is only a name here."""
    if not data_dir:
        raise UserError("no `data_dir` is given", "give the path of a .beton")
    return BetonSource(open_beton(data_dir))


SOURCE = open_source
