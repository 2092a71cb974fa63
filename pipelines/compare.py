"""Whether a .beton still is what a photo folder holds."""

import io
import os
import warnings
from dataclasses import fields
from importlib.metadata import version
from typing import Any

import numpy as np
from PIL import Image

from pipelines.beton import JPEG
from pipelines.decode import UNREADABLE
from pipelines.encode import WriteOptions, encode
from pipelines.errors import DamagedSample, UserError
from pipelines.payloads import Payloads, each
from pipelines.sources.imagefolder import PhotoFolder, open_source


def compare(path: str, folder: str) -> tuple[list[str], str]:
    """What differs, a line each, and what was compared. Raises UserError.

    Class by class: photos of a class are compared one by one where there are as many in the file as in the folder.
    """
    photos, source = Payloads(path), open_source(folder, "")
    if photos.labels is None:
        raise UserError(f"{path} has no int field 'label'", "compare one that write_dataset.py has written")
    options, why_not = _options(photos)
    differences, pairs = _pairs(photos, source, folder)

    def look(number: int) -> str | None:
        sample, index = pairs[number]
        why = _difference(photos, sample, source.read, index, options)
        return why and f"{photos.about(sample)}, {os.path.relpath(source.name(index), folder)}: {why}"

    differences += [line for _, line in each(look, len(pairs)) if line]
    photos.close()
    if options is not None:
        return differences, f"{len(pairs)} photos encoded again and compared byte by byte"
    return differences, f"only classes, counts and sizes of {len(pairs)} photos are compared: {why_not}"


def _options(photos: Payloads) -> tuple[WriteOptions | None, str]:
    """How the file was written, or None and why it cannot be written again with the same bytes."""
    card = photos.index.card
    if card is None:
        return None, "there is no card that says how the file was written"
    parameters, versions = card.get("parameters"), card.get("versions")
    known = {field.name for field in fields(WriteOptions)}
    if not isinstance(parameters, dict) or not isinstance(versions, dict) or not set(parameters) <= known:
        return None, "the card does not say how the file was written"
    for name in ("opencv-python", "pillow"):
        if versions.get(name) != version(name):
            return None, f"written with {name} {versions.get(name)}, and here is {version(name)}"
    return WriteOptions(**parameters), ""


def _pairs(photos: Payloads, source: PhotoFolder, folder: str) -> tuple[list[str], list[tuple[int, int]]]:
    """Differences of the classes and their counts; (sample, photo of the folder) that are to be compared."""
    names = photos.classes or [str(label) for label in range(int(photos.labels.max()) + 1)]
    differences, pairs = [], []
    if photos.classes:
        differences += [f"class {name} is not in the folder" for name in names if name not in source.classes]
        differences += [f"class {name} is only in the folder" for name in source.classes if name not in names]
        label_of = {label: names.index(name) for label, name in enumerate(source.classes) if name in names}
    else:
        label_of = {label: label for label in range(len(source.classes))}
    stored = _by_label(enumerate(photos.labels.tolist()))
    kept = _kept(photos.index.card or {}, source, folder)
    found = _by_label((i, label_of[source.label(i)]) for i in kept if source.label(i) in label_of)
    for label in sorted(stored.keys() | found.keys()):
        samples, indices = stored.get(label, []), found.get(label, [])
        name = names[label] if 0 <= label < len(names) else str(label)
        if len(samples) == len(indices):
            pairs += zip(samples, indices, strict=True)
        elif not photos.classes or name in source.classes:
            differences.append(f"class {name} has {len(samples)} photos, and {len(indices)} in the folder")
    return differences, pairs


def _by_label(items) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for item, label in items:
        found.setdefault(label, []).append(item)
    return found


def _kept(card: dict[str, Any], source: PhotoFolder, folder: str) -> list[int]:
    """The photos of the folder that the writer would not leave out: cfg.subset, cfg.on_error=skip."""
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


def _difference(photos: Payloads, sample: int, read, index: int, options: WriteOptions | None) -> str | None:
    """How a stored photo differs from one of the folder."""
    image = photos.images[sample]
    size = (int(image["width"]), int(image["height"]))
    try:
        payload = photos.verified(sample)
        data = read(index)
        if options is None:
            expected = _stored_size(data, max(size))
            return None if size == expected else f"its size is {size[0]} x {size[1]} instead of {expected}"
    except DamagedSample as error:
        return f"it is damaged in the file ({error.why})"
    except UNREADABLE as error:
        return f"it cannot be read in the folder ({error})"
    encoded = encode(data, bool(image["mode"] == JPEG), options)
    if encoded.error is not None:
        return f"it cannot be read in the folder ({encoded.error})"
    if (encoded.width, encoded.height) != size:
        return f"its size is {size[0]} x {size[1]} instead of {encoded.width} x {encoded.height}"
    return None if np.array_equal(encoded.payload, np.frombuffer(payload, np.uint8)) else "its pixels differ"


def _stored_size(data: bytes, longest: int) -> tuple[int, int]:
    """Width and height that a photo file has when it was shrunk to this longest side, if it is that large."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        size = Image.open(io.BytesIO(data)).size
    ratio = min(1.0, longest / max(size))
    return tuple(max(1, int(ratio * side)) for side in size)
