"""beton.write: any data set to a .beton."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from beton import system
from beton.errors import UserError
from beton.format.fields.base import Field
from beton.format.fields.image import Image
from beton.format.fields.int import Int
from beton.sources.dataset import DatasetSource
from beton.writing.options import WriteOptions
from beton.writing.writer import write as write_source


def write(
    dataset: Any,
    path: str | Path,
    *,
    workers: int | None = None,
    fields: Mapping[str, Field] | None = None,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    on_error: str = "raise",
    resume: bool = False,
    subset: int = -1,
    progress: Callable[[int], None] = lambda n: None,
    say: Callable[[str], None] = print,
    **image: Any,
) -> dict:
    """Write a data set to `path`, whole or not at all, and its card `path`.json; returns the card.

    `dataset`: anything with len() and [i] -> (image, label), such as a torch Dataset. An image is the bytes of an
    image file, a PIL image, or pixels (uint8, H x W x 3, RGB); a label is a whole number.

    `workers`: processes that read and encode (default: all cores). `fields`: how each value of a sample is
    stored, by name, in their order; default {"image": beton.fields.Image(...), "label": beton.fields.Int()}, whose
    options may be given here as they are: write_mode ('jpg' unless given), max_resolution, jpeg_quality, ...
    `classes`: names of the classes (default: dataset.classes, if it has them). `seed`: chooses what is chosen by
    lot. `on_error`: 'raise', or 'skip' to leave out samples that cannot be read. `resume`: continue a write
    that was interrupted, and keep what the next one needs. `subset`: only the first so many samples, -1 for
    all. `progress(n)` is called as samples are stored, `say(text)` with what was resumed.

    Raises UserError; then `path` is as it was.
    """
    if fields is None:
        fields = {"image": Image(**{"write_mode": "jpg", **image}), "label": Int()}
    elif image:
        raise UserError(f"{', '.join(image)} and `fields` are given", "give the options to the fields")
    if on_error not in ("raise", "skip"):
        raise UserError(f"`on_error`={on_error!r} is neither 'raise' nor 'skip'", "give one of these")
    options = WriteOptions(workers or system.cores(), subset=subset, seed=seed, on_error=on_error, resume=resume)
    source = DatasetSource(dataset, list(fields), classes)
    return write_source(source, path, dict(fields), options, {"name": "dataset"}, progress, say)
