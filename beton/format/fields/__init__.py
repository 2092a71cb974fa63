"""Fields, one file each; base.py says what such a file holds."""

from __future__ import annotations

from collections.abc import Mapping

from beton.errors import UserError
from beton.format.fields.base import Field
from beton.plugins import Plugins

FIELDS = Plugins("field", "beton.format.fields", "FIELD", others=("base",))


def __getattr__(name: str) -> type[Field]:
    """`fields.Image` is the field of image.py: imported when first used."""
    if name.lower() in FIELDS.names():
        return FIELDS.get(name.lower())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def by_type_id(
    path: str,
    type_ids: dict[str, int],
    arguments: list[bytes] | None = None,
    custom: Mapping[str, Field] | None = None,
) -> dict[str, Field]:
    """A field for each column, by the number of its type and the arguments of its descriptor (default: zeros);
    `custom` are those that the caller knows, by name.

    Raises UserError for an unknown number, ValueError for arguments that cannot be those of a complete file.
    """
    custom = custom or {}
    known: dict[int, list[type[Field]]] = {}
    for field in FIELDS.all().values():
        for type_id in field.type_names:
            known.setdefault(type_id, []).append(field)
    unknown = [name for name, type_id in type_ids.items() if type_id not in known and name not in custom]
    if unknown:
        what = f"{path} has fields of an unknown type: {', '.join(unknown)}"
        raise UserError(what, "leave them out of the file, or import what adds them to beton.fields.FIELDS")
    if arguments is None:
        arguments = [b"\0" * 1024] * len(type_ids)
    found = {}
    for (name, type_id), given in zip(type_ids.items(), arguments, strict=True):
        if name in custom:
            found[name] = custom[name]
            continue
        marked = [field for field in known[type_id] if given.startswith(field.marker)]
        if not marked:
            raise ValueError(f"the descriptor of its field '{name}' is damaged")
        found[name] = max(marked, key=lambda field: len(field.marker)).of_arguments(type_id, given)
    return found
