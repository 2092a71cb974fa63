"""A progress bar where tqdm is installed, nothing where it is not."""

import contextlib
import importlib.util
from collections.abc import Collection, Iterator
from types import SimpleNamespace
from typing import Any


def bar(total: int, unit: str):
    """A context with update(n): tqdm's bar on stderr, shown in terminals after the first second."""
    if importlib.util.find_spec("tqdm") is None:
        return contextlib.nullcontext(SimpleNamespace(update=lambda n=1: None))
    from tqdm import tqdm

    # No bar in the first second, so that an error found there is one line
    return tqdm(total=total, unit=unit, smoothing=0.05, delay=1, disable=None)


def shown(items: Collection, unit: str) -> Iterator[Any]:
    """The items, with a bar of how many have been taken."""
    with bar(len(items), unit) as done:
        for item in items:
            yield item
            done.update(1)
