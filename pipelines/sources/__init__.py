"""Sources: where samples come from, one file each with `open_source(data_dir, split, seed, count)`.

A source has `len()`, `classes` (names), `label(i)` (int), `name(i)` (for messages) and `read(i)`: the
bytes of an image file, or the pixels (uint8, H x W x 3).
"""

import difflib
import importlib
import pkgutil

from pipelines.errors import UserError

# ffcv-imagenet's name for a folder of class folders
_ALIASES = {"imagenet": "imagefolder"}


def known() -> list[str]:
    """Names of all sources: the files in this folder, and the aliases."""
    return sorted([m.name for m in pkgutil.iter_modules(__path__)] + list(_ALIASES))


def open_source(name: str, data_dir: str | None, split: str, seed: int = 0, count: int | None = None):
    """Open the source `name`; raises UserError when it is unknown or does not find its data.

    `seed` and `count` (number of samples) are for sources that make their samples.
    """
    if name not in known():
        close = difflib.get_close_matches(name, known(), 1)
        raise UserError(
            f"unknown source '{name}'" + (f" (did you mean '{close[0]}'?)" if close else ""),
            f"use one of {', '.join(known())}, or add pipelines/sources/{name}.py",
        )
    module = importlib.import_module(f"pipelines.sources.{_ALIASES.get(name, name)}")
    return module.open_source(data_dir, split, seed=seed, count=count)
