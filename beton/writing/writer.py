"""Samples -> .beton, published whole or not at all, the same bytes whatever the number of workers.

Workers read and encode (in threads: Pillow and OpenCV release the GIL; in processes where a source asks for it); one
thread places the payloads in the order of the samples. So the layout depends on nothing but the source and the
options, and a write that was interrupted anywhere ends with the same bytes when another process continues it.
"""

import os
import time
import traceback
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import cv2

from beton.errors import UserError
from beton.format import downscale, photo_files  # noqa: F401  now, and not when a worker has a first photo
from beton.format.card import card_path
from beton.format.fields.base import Encoded, Field
from beton.format.fields.int import Int
from beton.format.records import page_size
from beton.format.stored import Stored
from beton.sources.subset import Part
from beton.workers import in_order
from beton.writing import transaction
from beton.writing.card import make_card
from beton.writing.journal import Journal, NoJournal, journal_path
from beton.writing.layout import Layout
from beton.writing.options import WriteOptions, check_fields, differing, identity, part_of

_CORRECT = "correct the sample or its source"
_NOTHING = "nothing to resume, started anew"
_JOURNAL_VERSION = 2
_SECONDS_BETWEEN_FLUSHES = 0.1


@dataclass
class _Done:
    """How far a write is: indices of the samples placed, those left out with the reason, and how many of the first
    were stored again; `resumed` samples were taken over."""

    kept: list[int] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    restored: int = 0
    resumed: int = 0

    @property
    def next(self) -> int:
        return len(self.kept) + len(self.skipped)


@dataclass
class _Sample:
    """The encoded values of one sample, the CRC-32 of its payloads, or why it cannot be stored."""

    values: list[Encoded]
    crc32: int = 0
    error: str | None = None


class _Encoder:
    """Reads and encodes single samples; `choices` are those of each field, made before anything is read."""

    def __init__(self, source, fields: dict[str, Field], options: WriteOptions):
        self._source, self._fields, self._skip = source, fields, options.on_error == "skip"
        self._stored = [name for name, field in fields.items() if field.pointer is not None]
        self.count, self.is_part = len(source), isinstance(source, Part)
        # A part's samples are stored as in the whole file
        whole, start = (source.whole, source.start) if self.is_part else (self.count, 0)
        choices = {name: field.choices(whole, options.seed) for name, field in fields.items()}
        self.choices = {name: chosen[start : start + self.count] for name, chosen in choices.items()}

    def __call__(self, index: int, other: dict[str, Any] | None = None) -> _Sample:
        """Encode a sample, with `other` choices for some fields.

        Raises UserError if it cannot be read, unless such samples are to be left out.
        """
        sample = self._encoded(index, other or {})
        if sample.error is not None and not self._skip:
            raise unreadable(self._source.name(index), sample.error)
        return sample

    def _encoded(self, index: int, other: dict[str, Any]) -> _Sample:
        name = self._source.name(index)
        try:
            values, crc32 = [], 0
            for (column, kind), value in zip(self._fields.items(), self._source.read(index), strict=True):
                choice = other.get(column, self.choices[column][index])
                stored = isinstance(value, Stored)
                encoded = value.encoded(kind, choice) if stored else kind.encode(value, choice)
                if encoded.error is not None:
                    if kind.pointer is None:  # no damage of a file, but a mistake in the data set
                        raise UserError(f"cannot store {name} ({column}: {encoded.error})", _CORRECT)
                    return _Sample(
                        [], error=encoded.error if self._stored == [column] else f"{column}: {encoded.error}"
                    )
                if encoded.payload is not None:
                    crc32 = zlib.crc32(encoded.payload, crc32)
                values.append(encoded)
        except OSError as error:
            return _Sample([], error=str(error))
        except MemoryError:
            raise UserError(f"not enough memory for {name}", "set a smaller `workers`, or end other programs") from None
        except UserError:
            raise
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {error}, {Path(where.filename).name} line {where.lineno}"
            raise UserError(f"cannot store {name} ({what})", _CORRECT) from error
        self._check_label(name, values)
        return _Sample(values, crc32)

    def _check_label(self, name: str, values: list[Encoded]) -> None:
        """Raise UserError for a label that is not one of the source's classes."""
        if self._source.classes is None or not isinstance(self._fields.get("label"), Int):
            return
        (label,), count = values[list(self._fields).index("label")].values, len(self._source.classes)
        if not 0 <= label < count:
            raise UserError(f"the label of {name} is {label!r}, not one of 0 to {count - 1}", "correct the source")


def unreadable(name: str, why: str) -> UserError:
    """The error for a sample that cannot be read."""
    return UserError(f"cannot read {name} ({why})", "correct it, or set `on_error`='skip'")


def write(
    source,
    path: str | Path,
    fields: dict[str, Field],
    options: WriteOptions,
    about: dict,
    progress: Callable = lambda n: None,
    say: Callable = lambda text: None,
    with_card: bool = True,
) -> dict | None:
    """Write a source (see beton/sources) to `path` and its card beside it; returns the card.

    `fields` says how each value of a sample is stored, in their order. `about` (what the source is) goes into the
    card; `progress(n)` is called as samples are stored, `say(text)` with what was resumed or is kept. Without
    `with_card` there is none, and an interrupted write cannot be resumed.

    Raises UserError for a sample that cannot be read (on_error 'raise'), a full disk, and the like;
    then `path` is as it was, and no temporary file is left behind unless `options.resume` is set.
    """
    path, source = Path(path), options.selected(source)
    check_fields(fields)
    _check(source, path)
    cv2.setNumThreads(1)  # the threads are ours
    try:
        with transaction.locked(path, keep=options.resume) as file:
            return _write_locked(file, source, path, fields, options, about, progress, say, with_card)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error})", "check the folder and its disk") from None
    except MemoryError:
        what = f"not enough memory to write {len(source)} samples"
        raise UserError(what, "set a smaller `workers`, or end other programs") from None


def _check(source, path: Path) -> None:
    # os.path's, for Path's raise PermissionError where they may not look
    if not os.path.isdir(path.parent):
        raise UserError(f"there is no folder {path.parent}", "make it, or give another `path`")
    if os.path.exists(path) and not os.path.isfile(path):  # /dev/null would be replaced
        what = "a folder" if os.path.isdir(path) else "not an ordinary file"
        raise UserError(f"{path} is {what}", "give `path` the name of a file")
    if isinstance(source, Part) and source.of > source.whole > 0:
        raise UserError(f"{source.whole} samples are too few for {source.of} parts", "give a smaller number of parts")
    if len(source) == 0:
        raise UserError("there are no samples to write", "check the source and `subset`")


def _write_locked(file, source, path: Path, fields, options: WriteOptions, about, progress, say, with_card):
    started, encoder = time.monotonic(), _Encoder(source, fields, options)
    transaction.finish_card(file, path)
    begun = os.fstat(file.fileno()).st_size > 0 and journal_path(path).exists()
    if begun and not options.resume:
        _say_what_is_discarded(path, say)
    layout = Layout(file, fields, encoder.count, page_size(sum(f.largest_payload() for f in fields.values())))
    now = identity(source, fields, options, about) if with_card else {}
    if options.resume and not begun:
        card, text = _complete(path, source, options, now)
        say(text)
        if card is not None:
            transaction.drop_leftovers(path)
            return card
    with closing(Journal(journal_path(path)) if with_card else NoJournal()) as journal:
        done = _Done()
        if options.resume and begun:
            done = _take_over(layout, journal, options, now, progress)
            say(f"resumed after {done.next} of {encoder.count} samples" if done.next else _NOTHING)
        journal.truncate()
        layout.truncate()
        if journal.is_empty:
            journal.add([_JOURNAL_VERSION, now])
        try:
            _fill(layout, journal, source, encoder, options, done, progress)
        except BaseException:
            if options.resume:
                say(f"{done.next} of {encoder.count} samples are kept: `resume`=1 continues after them")
            raise
        if not layout.count:
            raise UserError("none of the samples can be read", "check the source")
        layout.finish()
    if not with_card:
        return transaction.publish(path, None)
    names = [source.stored_name(i) for i in done.kept] if hasattr(source, "stored_name") else None
    part = part_of(source, fields, options)
    outcome = {"identity": now, "skipped": done.skipped, "resumed": done.resumed, "names": names, "part": part}
    card = make_card(path, layout, source, options, about, outcome, time.monotonic() - started)
    transaction.publish(path, card)
    return card


class _Kept:
    """Has what is placed and its steps outlive the process, now and then: for each sample it would take as long as to
    store a small one."""

    def __init__(self, layout: Layout, journal: Journal):
        self._layout, self._journal, self._due = layout, journal, 0.0

    def look(self) -> None:
        """Flush if it is time."""
        if time.monotonic() > self._due:
            self._layout.flush()
            self._journal.flush()  # after the payloads, as it says that they are there
            self._due = time.monotonic() + _SECONDS_BETWEEN_FLUSHES

    def __enter__(self) -> "_Kept":
        return self

    def __exit__(self, *_) -> None:
        self._due = 0.0
        self.look()


def _fill(layout: Layout, journal: Journal, source, encoder: _Encoder, options, done: _Done, progress) -> None:
    """Place every sample that is not done."""
    workers, chunk = options.num_workers, options.chunk_size
    processes = getattr(source, "processes", False)
    samples = in_order(encoder, done.next, encoder.count, workers, chunk, processes)
    with closing(samples), _Kept(layout, journal) as kept:
        for index, sample in samples:  # an error stops the workers at once
            name = source.name(index)
            if sample.error is None:
                journal.add(layout.place(sample.values, sample.crc32, name))
                done.kept.append(index)
            else:
                done.skipped.append(f"{name}: {sample.error}")
                journal.add(done.skipped[-1])
            kept.look()
            progress(1)
    if done.skipped and not encoder.is_part:  # what the fields promised is of the whole
        _restore(layout, journal, source, encoder, done)


def _restore(layout: Layout, journal: Journal, source, encoder: _Encoder, done: _Done) -> None:
    """Samples were left out: store some of the others again, so that what the fields promised holds for the rest."""
    again = [
        (position, {name: choice})
        for name, field in layout.fields.items()
        for position, choice in field.corrections([encoder.choices[name][i] for i in done.kept])
    ]
    for position, other in again[done.restored :]:
        name = source.name(done.kept[position])
        sample = encoder(done.kept[position], other)
        if sample.error is not None:
            raise unreadable(name, sample.error)
        journal.add(layout.place(sample.values, sample.crc32, name, position))
        done.restored += 1


def _take_over(layout: Layout, journal: Journal, options: WriteOptions, now: dict, progress: Callable) -> _Done:
    """Enter what an interrupted write has stored, as far as it is whole and of the same samples and options."""
    done = _Done()
    for number, step in enumerate(journal.steps()):
        if number == 0:
            _check_same(step, now)
        elif isinstance(step, str):
            if options.on_error == "raise":  # from here on again: the sample may have been corrected
                break
            done.skipped.append(step)
            progress(1)
        else:
            new, index = step[0] == len(done.kept), done.next
            if not layout.take_over(step):
                break
            if new:
                done.kept.append(index)
                progress(1)
            else:
                done.restored += 1
    done.resumed = len(done.kept)
    return done


def _check_same(first: Any, now: dict) -> None:
    if not isinstance(first, list) or first[0] != _JOURNAL_VERSION:
        what = "the interrupted write is of another version of this program"
        raise UserError(what, "leave out `resume` to start over")
    for name, (before, given) in differing(first[1], now).items():
        what = f"the interrupted write had {_quoted(name)}={before}, this one has {given}"
        raise UserError(what, "give the same as then, or leave out `resume` to start over")


def _quoted(name: str) -> str:
    """The name of a part of an identity, in backquotes where it is an argument."""
    return f"`{name}`" if name.isidentifier() else name


def _say_what_is_discarded(path: Path, say: Callable) -> None:
    with closing(Journal(journal_path(path))) as journal:
        # A sample that was stored again is there twice
        samples = {step if isinstance(step, str) else step[0] for step in islice(journal.steps(), 1, None)}
    if samples:
        what = f"{len(samples)} samples of an interrupted write are discarded"
        say(f"{what}; with the same settings, `resume`=1 would have continued after them")


def _complete(path: Path, source, options: WriteOptions, now: dict) -> tuple[dict | None, str]:
    """The card of the file at `path`, if it is what this write would make, and what to say."""
    card = transaction.card_of(path, card_path(path))
    if card is None:
        return None, _NOTHING
    other = _other_settings(card, source, options, now)
    if other:
        return None, f"{path} was written with other settings ({other}): written anew"
    return card, f"{path} is complete already, nothing is written; its card says:"


def _other_settings(card: dict, source, options: WriteOptions, now: dict) -> str:
    """What the file of this card was written with, if this write would come to another one; else ""."""
    before, skipped = card.get("identity"), card.get("skipped")
    if not isinstance(before, dict):
        return "its card does not say which"
    other = [f"{_quoted(name)}={value}" for name, (value, _) in differing(before, now).items()]
    if card.get("classes") != source.classes:  # the bytes do not depend on a class without samples
        other.append("other classes")
    if skipped and options.on_error == "raise":
        other.append(f"`on_error`='skip', which left out {len(skipped)}")
    return ", ".join(other)
