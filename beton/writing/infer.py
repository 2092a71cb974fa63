"""Which fields a data set needs, from some of its samples."""

import io
import numbers
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from beton.errors import UserError
from beton.format.fields import FIELDS
from beton.format.fields.base import Field
from beton.workers import in_order

_LOOKED_AT = 8
_USUAL = ("image", "label")
_TYPES = {"int": (numbers.Integral, np.bool_), "float": numbers.Real, "text": str, "json": (dict, list, type(None))}
_GIVE = "give `fields`, e.g. {'x': beton.fields.Array('float32', (None, 4))}"


def infer_fields(
    dataset: Any, count: int, names: Sequence[str] | None, workers: int, image: dict[str, Any]
) -> dict[str, Field]:
    """A field for each value of a sample, by name, from up to 8 samples among the first `count`; raises UserError.

    The keys of a dict, the names of a named tuple, or `names` for the values of a tuple; a tuple of two without names
    is (image, label). Images (PIL, files, pixels of uint8, H x W x 3) get the options `image`; whole numbers become
    int, other numbers float, strings text, bytes bytes, arrays and tensors what they are (a side that is not the same
    in all of these samples varies), dicts, lists and None json. Samples that cannot be read are passed over: to say
    what is wrong with them is for whoever writes them.
    """
    places = np.unique(np.linspace(0, count - 1, min(_LOOKED_AT, count)).round().astype(int)).tolist()

    def look(number: int) -> list[tuple[str, tuple]] | UserError | None:
        try:
            named = _named(dataset[places[number]], names)
            return named and [(name, _kind(name, value, names)) for name, value in named]
        except UserError as error:
            return error
        except Exception:  # noqa: BLE001
            return None

    with closing(in_order(look, 0, len(places), workers, 1, processes=True)) as looks:
        found = [kinds for _, kinds in looks if kinds is not None]
    for kinds in found:
        if isinstance(kinds, UserError):
            raise kinds
    if not found:
        given = dict.fromkeys(names, ("json",)) if names else {"image": ("image",), "label": ("int",)}
    else:
        given = {name: _merged(name, [dict(kinds).get(name) for kinds in found]) for name, _ in found[0]}
    if image and ("image",) not in given.values():
        raise UserError(f"{', '.join(image)} are for images, and the samples have none", "leave them out")
    return {name: _field(kind, image) for name, kind in given.items()}


def _named(sample: Any, names: Sequence[str] | None) -> list[tuple[str, Any]] | None:
    """The values of a sample with their names; None for what is none."""
    if isinstance(sample, Mapping):
        wrong = [name for name in sample if not isinstance(name, str)]
        if wrong:
            raise UserError(f"{wrong[0]!r} cannot be the name of a field", "give the samples names that are strings")
        return [(name, sample[name]) for name in names or sample]
    if not isinstance(sample, (tuple, list)):
        return None
    names = names or getattr(sample, "_fields", None) or (_USUAL if len(sample) == 2 else None)
    if names is None:
        raise UserError(f"a sample has {len(sample)} values without names", "give `names`, or `fields`")
    return list(zip(names, sample, strict=True)) if len(names) == len(sample) else None


def _kind(name: str, value: Any, names: Sequence[str] | None) -> tuple:
    """The kind of a field, and its dtype and shape where it has some."""
    kind = _kind_of(value)
    if name == "image" and names is None and kind in (("text",), ("bytes",), ("other",)):
        return ("image",)  # it cannot be one, and the writer says why
    if kind == ("other",):
        raise UserError(f"the values of '{name}' are {type(value).__name__}, which no field stores", _GIVE)
    return kind


def _kind_of(value: Any) -> tuple:
    from PIL import Image as Pillow

    if isinstance(value, Pillow.Image):
        return ("image",)
    if isinstance(value, (np.ndarray, np.generic)) and value.ndim:
        pixels = value.dtype == np.uint8 and value.ndim == 3 and value.shape[2] == 3
        return ("image",) if pixels else ("array", value.dtype.str, value.shape)
    if type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "is_floating_point"):
        if value.ndim:
            return ("tensor", str(value.dtype), tuple(value.shape))
        return ("float",) if value.is_floating_point() else ("int",)
    if isinstance(value, (bytes, bytearray)):
        return ("image",) if _is_image_file(bytes(value)) else ("bytes",)
    return next(((kind,) for kind, types in _TYPES.items() if isinstance(value, types)), ("other",))


def _is_image_file(data: bytes) -> bool:
    from PIL import Image as Pillow

    try:
        Pillow.open(io.BytesIO(data)).close()
        return True
    except Exception:  # noqa: BLE001  Pillow raises many kinds for bytes that are none
        return False


def _merged(name: str, kinds: list[tuple | None]) -> tuple:
    """The kind that holds the values of several samples."""
    several = sorted({kind for kind in kinds if kind is not None}, key=str)
    if len(several) == 1:
        return several[0]
    if several == [("float",), ("int",)]:
        return ("float",)
    if len({(*kind[:2], *map(len, kind[2:])) for kind in several}) == 1:  # but for the lengths of the sides
        sides = zip(*(shape for _, _, shape in several), strict=True)
        return (*several[0][:2], tuple(side[0] if len(set(side)) == 1 else None for side in sides))
    said = ", ".join(" ".join(map(str, kind)) for kind in several)
    raise UserError(f"the values of '{name}' are of several kinds ({said})", _GIVE)


def _field(kind: tuple, image: dict[str, Any]) -> Field:
    field = FIELDS.get(kind[0])
    return field(**{"write_mode": "jpg", **image}) if kind == ("image",) else field(*kind[1:])
