"""Whether a .beton still is what a photo folder holds."""

import io
import os
import warnings
from typing import Any

import numpy as np
from PIL import Image as Pillow

from beton.errors import DamagedSample, UserError
from beton.format.fields.base import Field
from beton.format.fields.image import Image
from beton.format.file import BetonFile
from beton.format.joined import open_beton
from beton.format.photo_files import UNREADABLE
from beton.inspecting.each import each
from beton.sources.imagefolder import PhotoFolder, open_source
from beton.writing.options import WriteOptions, make_fields, parameters, version_of


def compare(path: str, folder: str) -> tuple[list[str], str]:
    """What differs, a line each, and what was compared. Raises UserError.

    Class by class: photos of a class are compared one by one where there are as many in the file as in the folder.
    """
    with open_beton(path) as file:
        source = open_source(folder, "", empty_classes="keep")
        if file.labels is None:
            raise UserError(f"{path} has no int field 'label'", "compare a file of photos and labels")
        fields, why_not = _fields(file, source)
        differences, pairs = _pairs(file, source, folder)

        def look(number: int) -> str | None:
            sample, index = pairs[number]
            why = _difference(file, sample, source, index, fields)
            return why and f"{file.describe(sample)}, {os.path.relpath(source.name(index), folder)}: {why}"

        differences += [line for _, line in each(look, len(pairs)) if line]
    if fields is not None:
        return differences, f"{len(pairs)} photos encoded again and compared byte by byte"
    return differences, f"only classes, counts and sizes of {len(pairs)} photos are compared: {why_not}"


def _fields(file: BetonFile, source: PhotoFolder) -> tuple[dict[str, Field] | None, str]:
    """How the file was written, or None and why it cannot be written again with the same bytes."""
    if file.card is None:
        return None, "there is no card that says how the file was written"
    given, versions = file.card.get("parameters"), file.card.get("versions")
    if not isinstance(given, dict) or not isinstance(versions, dict):
        return None, "the card does not say how the file was written"
    for name in ("opencv-python", "pillow"):
        if versions.get(name) != version_of(name):
            return None, f"written with {name} {versions.get(name)}, and here is {version_of(name)}"
    fields = make_fields(source.fields, given)
    known = {*parameters(fields), *vars(WriteOptions())}
    if not set(given) <= known or list(fields) != list(file.columns):
        return None, "the card does not say how the file was written"
    return fields, ""


def _pairs(file: BetonFile, source: PhotoFolder, folder: str) -> tuple[list[str], list[tuple[int, int]]]:
    """Differences of the classes and their counts; (sample, photo of the folder) that are to be compared."""
    names = file.classes or [str(label) for label in range(int(file.labels.max()) + 1)]
    differences, pairs = [], []
    if file.classes:
        differences += [f"class {name} is not in the folder" for name in names if name not in source.classes]
        differences += [f"class {name} is only in the folder" for name in source.classes if name not in names]
        label_of = {label: names.index(name) for label, name in enumerate(source.classes) if name in names}
    else:
        label_of = {label: label for label in range(len(source.classes))}
    given = (file.card or {}).get("parameters") or {}
    kept, samples = _kept(file.card or {}, source, folder), range(len(file))
    if file.names is not None and given.get("random_subset") is not None:
        drawn = set(file.names)
        kept = [i for i in range(len(source)) if source.stored_name(i) in drawn]
    if file.names is not None and given.get("shuffle"):
        samples, kept = sorted(samples, key=file.names.__getitem__), sorted(kept, key=source.stored_name)
    stored = _by_label((sample, int(file.labels[sample])) for sample in samples)
    found = _by_label((i, label_of[source.label(i)]) for i in kept if source.label(i) in label_of)
    for label in sorted(stored.keys() | found.keys()):
        samples, indices = stored.get(label, []), found.get(label, [])
        name = names[label] if 0 <= label < len(names) else str(label)
        if len(samples) == len(indices):
            pairs += zip(samples, indices, strict=True)
        elif not file.classes or name in source.classes:
            differences.append(f"class {name} has {len(samples)} photos, and {len(indices)} in the folder")
    return differences, pairs


def _by_label(items) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for item, label in items:
        found.setdefault(label, []).append(item)
    return found


def _kept(card: dict[str, Any], source: PhotoFolder, folder: str) -> list[int]:
    """The photos of the folder that its writer has not left out: by `subset`, or by `on_error`='skip'."""
    subset = (card.get("parameters") or {}).get("subset", -1)
    count = len(source) if subset < 0 else min(subset, len(source))
    # The folder may have moved since
    before = (card.get("source") or {}).get("data_dir") or folder
    kept = {source.name(i): i for i in range(count)}
    for line in card.get("skipped") or []:
        names = (os.path.join(folder, os.path.relpath(name, before)) for name in _possible_names(line))
        kept.pop(next((name for name in names if name in kept), None), None)
    return list(kept.values())


def _possible_names(line: str) -> list[str]:
    """What may be the name in "name: why", the longest first: both may hold ': '."""
    parts = line.split(": ")
    return [": ".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]


def _difference(file: BetonFile, sample: int, source: PhotoFolder, index: int, fields) -> str | None:
    """How a stored sample differs from one of the folder."""
    try:
        payloads = file.verified(sample)
        values = dict(zip(source.fields, source.read(index), strict=True))
        if fields is None:
            return _other_size(file, sample, values)
    except DamagedSample as error:
        return f"it is damaged in the file ({error.why})"
    except UNREADABLE as error:
        return f"it cannot be read in the folder ({error})"
    for name, field in fields.items():
        if name == "label":  # labels are compared by the names of their classes
            continue
        record = file.columns[name].records[sample]
        encoded = field.encode(values[name], field.choice_of(record))
        if encoded.error is not None:
            return f"it cannot be read in the folder ({encoded.error})"
        column, address = file.columns[name], 0
        if column.sizes is not None:
            address = int(column.addresses[sample])
        expected = np.array([field.row(encoded.values, address)], field.record)[0]
        if expected != record:
            return f"it is {field.describe(record)} instead of {field.describe(expected)}"
        if encoded.payload is not None and encoded.payload.tobytes() != payloads[name]:
            return "its pixels differ"
    return None


def _other_size(file: BetonFile, sample: int, values: dict[str, Any]) -> str | None:
    """How the size of a sample's images differs from that of the folder's."""
    for name, column in file.columns.items():
        if isinstance(column.field, Image) and name in values:
            record = column.records[sample]
            size = (int(record["width"]), int(record["height"]))
            expected = _stored_size(values[name], max(size))
            if size != expected:
                return f"its size is {size[0]} x {size[1]} instead of {expected[0]} x {expected[1]}"
    return None


def _stored_size(data: bytes, longest: int) -> tuple[int, int]:
    """Width and height that a photo file has when it was shrunk to this longest side, if it is that large."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        size = Pillow.open(io.BytesIO(data)).size
    ratio = min(1.0, longest / max(size))
    return tuple(max(1, int(ratio * side)) for side in size)
