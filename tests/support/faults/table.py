"""The rows of the table of faults: what they are made of, and what their scenarios have in common.

A row is a scenario (a function) below a decorator that `part()` gives. It is written once and played with either side
(sides.py). It returns where the result is right and raises Wrong where it is not; any other exception is an
error of the side, such as a user would see.
"""

import resource
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.support.faults.sides import SIDES
from tests.support.photos import Source, draw_photos

# What stock FFCV makes of a fault
KINDS = (
    "hangs",  # waits, or turns in circles, for ever
    "aborts",  # the process dies by a signal
    "wrong pixels",
    "wrong samples",
    "not reproducible",
    "silent",  # does something else than it was asked, and does not say so
    "leaks",
    "orphans",
    "leaves a broken file",
    "loses data",
    "starts over",
    "exits with status 0",
    "unclear error",  # that does not say what is wrong with what
    "error",  # where there is nothing that should be one
)


class Wrong(Exception):
    """What went wrong without an error: one of KINDS, and what was seen."""

    def __init__(self, kind: str, text: str = ""):
        super().__init__(f"{kind}: {text}")
        self.kind, self.text = kind, text


@dataclass(frozen=True)
class Outcome:
    """`kind`: "right", "error", or one of KINDS."""

    kind: str
    text: str = ""


@dataclass(frozen=True)
class Fault:
    """A row. `what` goes wrong; `stock`: "kind of stock's outcome: more of it" ("a or b": it varies); `ours`: what
    happens here.

    Here it is an error that has `words`, or, without words, the right result. `apart`: in a process of its own,
    here too.
    """

    scenario: Callable
    part: str
    what: str
    stock: str
    ours: str
    words: tuple[str, ...] = ()
    apart: bool = False

    @property
    def name(self) -> str:
        return self.scenario.__name__

    def passes(self, outcome: Outcome) -> bool:
        """What is asked of both sides: the right result, or an error of one line that names what is wrong."""
        if not self.words:
            return outcome.kind == "right"
        one_line = "\n" not in outcome.text
        return outcome.kind == "error" and one_line and all(word in outcome.text for word in self.words)

    def is_as_reported(self, outcome: Outcome) -> bool:
        """Whether stock FFCV does what the table says."""
        kind = "unclear error" if outcome.kind == "error" and self.words else outcome.kind
        return kind in self.kinds

    @property
    def kinds(self) -> list[str]:
        return self.stock.partition(": ")[0].split(" or ")


TABLE: list[Fault] = []


def part(title: str) -> Callable:
    """A decorator that enters a scenario into this part of the table; its arguments are Fault's, the words last."""

    def fault(what: str, stock: str, ours: str, *words: str, apart: bool = False) -> Callable:
        def enter(scenario: Callable) -> Callable:
            TABLE.append(Fault(scenario, title, what, stock, ours, words, apart))
            return scenario

        return enter

    return fault


def play(fault: Fault, side: str, folder: Path) -> Outcome:
    """Play a scenario in this process."""
    try:
        fault.scenario(SIDES[side](), folder)
    except Wrong as wrong:
        return Outcome(wrong.kind, wrong.text)
    except SystemExit as end:
        return Outcome(f"exits with status {end.code or 0}")
    except Exception as error:  # noqa: BLE001  that is what is looked at
        return Outcome("error", str(error))
    return Outcome("right")


# Photos, and what comes back of them

SIDE = 32


def draw(count: int, seed: int = 0) -> list[np.ndarray]:
    """Photos (uint8, 32 x 32 x 3) no two of which are alike."""
    return draw_photos(count, SIDE, SIDE, seed)


def with_third(photos: list, third) -> Source:
    """A source whose photo 3 is another."""
    return Source([*photos[:3], third, *photos[4:]])


def read_all(side, path, **how) -> tuple[np.ndarray, np.ndarray]:
    """All images and labels of an epoch."""
    return gather(side, side.loader(path, **how))


def gather(side, batches) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of batches, copied batch by batch."""
    copies = [(side.pixels(batch).copy(), side.labels(batch).copy()) for batch in batches]
    images, labels = map(np.concatenate, zip(*copies, strict=True))
    return images, labels


def difference(image: np.ndarray, photo: np.ndarray) -> float:
    """Mean of the absolute differences of their pixels."""
    return np.abs(image.astype(int) - photo).mean()


def compare(images: np.ndarray, labels: np.ndarray, photos: list, true_labels=None) -> None:
    """Raise Wrong unless these are the photos in order, as far as JPEG allows."""
    true_labels = range(len(photos)) if true_labels is None else true_labels
    if len(images) != len(photos):
        raise Wrong("wrong samples", f"{len(images)} samples instead of {len(photos)}")
    if list(labels) != list(true_labels):
        raise Wrong("wrong samples", "other labels")
    for i, (image, photo) in enumerate(zip(images, photos, strict=True)):
        if difference(image, photo) > 10:
            others = [j for j, other in enumerate(photos) if difference(image, other) < 5]
            is_of = f"the pixels of sample {others[0]}" if others else "pixels of no photo"
            raise Wrong("wrong pixels", f"sample {i} has {is_of}")


def write_and_compare(side, folder, source: Source, photos: list) -> None:
    side.write(source, folder / "a.beton")
    compare(*read_all(side, folder / "a.beton"), photos)


@contextmanager
def full_disk(size: int):
    """No file can become longer than this."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def make(side, folder: Path, mode: str = "jpg", count: int = 20, workers: int = 2) -> tuple[Path, list]:
    """A data set, and its photos."""
    photos = draw(count)
    side.write(Source(photos), folder / "a.beton", mode, workers)
    return folder / "a.beton", photos
