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
from beton.writing.infer import infer_fields
from beton.writing.options import WriteOptions
from beton.writing.writer import write as write_source


def write(
    dataset: Any,
    path: str | Path,
    *,
    workers: int | None = None,
    names: Sequence[str] | None = None,
    fields: Mapping[str, Field] | None = None,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    on_error: str = "raise",
    resume: bool = False,
    subset: int = -1,
    shuffle: bool = False,
    progress: Callable[[int], None] = lambda n: None,
    say: Callable[[str], None] = print,
    **image: Any,
) -> dict:
    """Write a data set to `path`, whole or not at all, and its card `path`.json; returns the card.

    `dataset`: anything with len() and [i] -> a dict, a named tuple, or a tuple whose values `names` names; a tuple of
    two without is (image, label). For example a torch Dataset.

    `fields`: how each value of a sample is stored, by name, in their order: see beton.fields, and there Image, Int,
    Float, Bytes, Text, Json, Array and Tensor. By default up to 8 samples are looked at: images (PIL images, the
    bytes of image files, pixels of uint8, H x W x 3, RGB) become images, whole numbers ints, other numbers floats,
    strings text, bytes bytes, arrays and tensors arrays and tensors whose sides vary where these samples' do, dicts,
    lists and None json. Of dicts, `fields` may leave keys out. The options of inferred images may be given here as
    they are: write_mode ('jpg' unless given), max_resolution, jpeg_quality, ...

    `workers`: processes that read and encode (default: all cores).
    `classes`: names of the classes (default: dataset.classes, if it has them). `seed`: chooses what is chosen by
    lot. `on_error`: 'raise', or 'skip' to leave out samples that cannot be read. `resume`: continue a write
    that was interrupted, and keep what the next one needs. `subset`: only the first so many samples, -1 for
    all. `shuffle`: store them in an order that `seed` draws: of a data set that comes class by class, files that are
    read in pages or fetched from elsewhere mix better. `progress(n)` is called as samples are stored, `say(text)` with
    what was resumed.

    Raises UserError; then `path` is as it was.
    """
    if fields is not None and (image or names):
        raise UserError(f"{', '.join(image or ['`names`'])} and `fields` are given", "give the options to the fields")
    if on_error not in ("raise", "skip"):
        raise UserError(f"`on_error`={on_error!r} is neither 'raise' nor 'skip'", "give one of these")
    workers, whole = workers or system.cores(), fields is None and names is None
    options = WriteOptions(workers, subset=subset, shuffle=shuffle, seed=seed, on_error=on_error, resume=resume)
    if fields is None:
        count = len(dataset) if subset < 0 else min(subset, len(dataset))
        Image(**image)  # before anything is read: are its options good?
        fields = infer_fields(dataset, count, names, workers, image) if count else {"image": Image(), "label": Int()}
    source = DatasetSource(dataset, list(fields), classes, whole)
    return write_source(source, path, dict(fields), options, {"name": "dataset"}, progress, say)
