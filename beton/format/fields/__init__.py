"""Fields, one file each; base.py says what such a file holds."""

from __future__ import annotations

from beton.errors import UserError
from beton.format.fields._stock import STOCK_FIELDS
from beton.format.fields.base import Field
from beton.plugins import Plugins

FIELDS = Plugins("field", "beton.format.fields", "FIELD", others=("base",))


def __getattr__(name: str) -> type[Field]:
    """`fields.Image` is the field of image.py: imported when first used."""
    if name.lower() in FIELDS.names():
        return FIELDS.get(name.lower())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def by_type_id(path: str, type_ids: dict[str, int]) -> dict[str, Field]:
    """A field for each column, by the number of its type; raises UserError for an unknown one."""
    known = {type_id: field for field in STOCK_FIELDS for type_id in field.type_names}
    known |= {type_id: field() for field in FIELDS.all().values() for type_id in field.type_names}
    unknown = [name for name, type_id in type_ids.items() if type_id not in known]
    if unknown:
        what = f"{path} has fields of an unknown type: {', '.join(unknown)}"
        raise UserError(what, "leave them out of the file, or import what adds them to beton.fields.FIELDS")
    return {name: known[type_id] for name, type_id in type_ids.items()}
