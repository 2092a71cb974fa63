"""Samples -> .beton, published whole or not at all, the same bytes whatever the number of threads.

Threads read, resize and encode (Pillow and OpenCV release the GIL); one thread places the payloads in
the order of the samples. So the layout depends on nothing but the source and the options, and a write
that was interrupted anywhere ends with the same bytes when another process goes on with it.
"""

import base64
import fcntl
import hashlib
import os
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from pipelines import beton
from pipelines.encode import Encoded, WriteOptions, choose_jpegs, encode, page_size
from pipelines.errors import UserError
from pipelines.journal import Journal, journal_path
from pipelines.layout import Layout
from pipelines.threads import in_order

_NOTHING = "nothing to resume, started anew"
_PACKAGES = ("numpy", "opencv-python", "pillow")
# With other values of these the bytes are the same, or tell by themselves
_FREE_OPTIONS = ("num_workers", "chunk_size", "subset", "on_error")


def _encoded(source, index: int, as_jpeg: bool | None, options: WriteOptions) -> Encoded:
    """One photo; raises UserError if it cannot be read, unless such photos are to be left out."""
    try:
        encoded = encode(source.read(index), as_jpeg, options)
    except OSError as error:
        encoded = Encoded(error=str(error))
    except MemoryError:
        to_do = "set a smaller cfg.num_workers, or end other programs"
        raise UserError(f"not enough memory for {source.name(index)}", to_do) from None
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {error}, {Path(where.filename).name} line {where.lineno}"
        raise UserError(f"cannot store {source.name(index)} ({what})", "mend the photo or the source") from error
    if encoded.error is None:
        encoded.crc32 = zlib.crc32(encoded.payload)
    elif options.on_error == "raise":
        raise _unreadable(source.name(index), encoded.error)
    return encoded


def _unreadable(name: str, why: str) -> UserError:
    return UserError(f"cannot read {name} ({why})", "mend it, or set cfg.on_error=skip")


def _label(source, index: int) -> int:
    label, classes = source.label(index), len(source.classes)
    if not isinstance(label, int | np.integer) or not 0 <= label < classes:
        what = f"the label of {source.name(index)} is {label!r}, not one of 0 to {classes - 1}"
        raise UserError(what, "mend the source")
    return int(label)


@dataclass
class _Done:
    """How far a write is: indices of the photos placed, those left out with the reason, and how many of the first
    were stored again; `resumed` samples were taken over."""

    kept: list[int] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    restored: int = 0
    resumed: int = 0

    @property
    def next(self) -> int:
        return len(self.kept) + len(self.skipped)


def _fill(layout: Layout, journal: Journal, source, options: WriteOptions, done: _Done, progress: Callable) -> None:
    """Place every photo that is not done."""
    jpegs = choose_jpegs(_count(source, options), options)

    def work(index: int) -> Encoded:
        return _encoded(source, index, jpegs[index], options)

    photos = in_order(work, done.next, len(jpegs), options.num_workers, options.chunk_size)
    with closing(photos):  # an error stops the threads at once
        for index, encoded in photos:
            name = source.name(index)
            if encoded.error is None:
                journal.add(layout.place(encoded, _label(source, index), name))
                done.kept.append(index)
            else:
                done.skipped.append(f"{name}: {encoded.error}")
                journal.add(done.skipped[-1])
            progress(1)
    if done.skipped and options.write_mode == "proportion":
        _restore_proportion(layout, journal, source, jpegs, options, done)


def _restore_proportion(layout: Layout, journal: Journal, source, jpegs: list, options, done: _Done) -> None:
    """Photos were left out: store some of the others again, so that exactly round(p * N) are JPEGs."""
    surplus = sum(jpegs[i] for i in done.kept) - round(options.compress_probability * len(done.kept))
    samples = [s for s, i in enumerate(done.kept) if jpegs[i] == (surplus > 0)][: abs(surplus)]
    for sample in samples[done.restored :]:
        index = done.kept[sample]
        encoded = _encoded(source, index, surplus < 0, options)
        if encoded.error is not None:
            raise _unreadable(source.name(index), encoded.error)
        journal.add(layout.place(encoded, _label(source, index), source.name(index), sample))
        done.restored += 1


def _identity(source, options: WriteOptions, about: dict) -> dict:
    """All that the bytes depend on: what is gone on with must have begun with the same."""
    photos = hashlib.sha256()
    for i in range(_count(source, options)):
        photos.update(f"{_label(source, i)} {source.name(i)}\0".encode("utf-8", "surrogateescape"))
    return {
        **{f"cfg.{name}": value for name, value in asdict(options).items() if name not in _FREE_OPTIONS},
        **{f"source {name}": value for name, value in about.items()},
        **{f"version of {name}": version(name) for name in _PACKAGES},
        "format version": beton.VERSION,
        "names and labels": photos.hexdigest()[:16],
    }


def _take_over(layout: Layout, journal: Journal, source, options: WriteOptions, identity: dict, progress) -> _Done:
    """Enter what an interrupted write has stored, as far as it is whole and of the same photos and options."""
    done = _Done()
    for number, step in enumerate(journal.steps()):
        if number == 0:
            _same(step, identity)
        elif isinstance(step, str):
            if options.on_error == "raise":  # from here on again: the photo may have been mended
                break
            done.skipped.append(step)
            progress(1)
        else:
            sample, new = step[0], step[0] == len(done.kept)
            if not layout.take_over(step, _label(source, done.next if new else done.kept[sample])):
                break
            if new:
                done.kept.append(done.next)
                progress(1)
            else:
                done.restored += 1
    done.resumed = len(done.kept)
    return done


def _differing(before: dict, identity: dict) -> list[str]:
    return [name for name in {**before, **identity} if before.get(name) != identity.get(name)]


def _same(before: dict, identity: dict) -> None:
    for name in _differing(before, identity):
        what = f"the interrupted write had {name}={before.get(name)}, this one has {identity.get(name)}"
        raise UserError(what, "give the same as then, or leave out cfg.resume to start over")


def _count(source, options: WriteOptions) -> int:
    return len(source) if options.subset < 0 else min(options.subset, len(source))


def _check(source, path: Path, options: WriteOptions) -> None:
    # os.path's, for Path's raise PermissionError where they may not look
    if not os.path.isdir(path.parent):
        raise UserError(f"there is no folder {path.parent}", "make it, or give another cfg.write_path")
    if os.path.exists(path) and not os.path.isfile(path):  # /dev/null would be replaced
        what = "a folder" if os.path.isdir(path) else "not an ordinary file"
        raise UserError(f"{path} is {what}", "give cfg.write_path the name of a file")
    if _count(source, options) == 0:
        raise UserError("there are no photos to write", "check cfg.data_dir and cfg.subset")


def write(
    source,
    path: str | Path,
    options: WriteOptions,
    about: dict,
    progress: Callable = lambda n: None,
    resume: bool = False,
    say: Callable = lambda text: None,
) -> dict:
    """Write a source to `path` and its card beside it; returns the card.

    `about` (what the source is) goes into the card; `progress(n)` is called as photos are stored.
    Raises UserError for a photo that cannot be read (on_error 'raise'), a full disk, and the like;
    then `path` is as it was, and no temporary file is left behind. `resume` goes on with a write that
    was interrupted, and leaves behind what the next one needs; a file that is complete already stays as it is,
    and its card is returned. `say(text)` is told of all this.
    """
    path = Path(path)
    _check(source, path, options)
    cv2.setNumThreads(1)  # the threads are ours
    try:
        # Not truncated on opening: another process may be writing it
        with os.fdopen(os.open(beton.partial_path(path), os.O_RDWR | os.O_CREAT, 0o666), "rb+") as file:
            _lock(file, beton.partial_path(path), path)
            try:
                return _write_locked(file, source, path, options, about, progress, resume, say)
            except BaseException:
                _clean_up(file, path, resume)
                raise
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error})", "check the folder and its disk") from None
    except MemoryError:
        what = f"not enough memory to write {_count(source, options)} photos"
        raise UserError(what, "set a smaller cfg.num_workers, or end other programs") from None


def _write_locked(file, source, path: Path, options: WriteOptions, about, progress, resume, say) -> dict:
    started, count = time.monotonic(), _count(source, options)
    _finish_card(file, path)
    begun = os.fstat(file.fileno()).st_size > 0 and journal_path(path).exists()
    if begun and not resume:
        _say_what_is_discarded(path, say)
    layout = Layout(file, count, page_size(options))
    identity = _identity(source, options, about)
    if resume and not begun:
        card, text = _complete(path, source, options, identity)
        say(text)
        if card is not None:
            _drop_leftovers(path)
            return card
    with closing(Journal(journal_path(path))) as journal:
        done = _Done()
        if resume and begun:
            done = _take_over(layout, journal, source, options, identity, progress)
            say(f"went on after {done.next} of {count} photos" if done.next else _NOTHING)
        journal.cut()
        layout.cut()
        if journal.is_empty:
            journal.add(identity)
        try:
            _fill(layout, journal, source, options, done, progress)
        except BaseException:
            if resume:
                say(f"{done.next} of {count} photos are kept: cfg.resume=1 goes on after them")
            raise
        if not layout.count:
            raise UserError("none of the photos can be read", "check cfg.data_dir")
        layout.finish()
    card = _card(path, layout, source, options, about, identity, done, time.monotonic() - started)
    _publish(path, card)
    return card


def _say_what_is_discarded(path: Path, say: Callable) -> None:
    with closing(Journal(journal_path(path))) as journal:
        # A photo that was stored again is there twice
        photos = {step if isinstance(step, str) else step[0] for step in islice(journal.steps(), 1, None)}
    if photos:
        what = f"{len(photos)} photos of an interrupted write are discarded"
        say(f"{what}; with the same settings, cfg.resume=1 would have gone on after them")


def _complete(path: Path, source, options: WriteOptions, identity: dict) -> tuple[dict | None, str]:
    """The card of the file at `path`, if it is what this write would make, and what to say."""
    card = _card_of(path, beton.card_path(path))
    if card is None:
        return None, _NOTHING
    other = _other_settings(card, source, options, identity)
    if other:
        return None, f"{path} was written with other settings ({other}): written anew"
    return card, f"{path} is complete already, nothing is written; its card says:"


def _card_of(path: Path, card_path: Path) -> dict | None:
    """The card at `card_path`, if it is that of a complete file `path`, by the checksum of the tables."""
    try:
        index = beton.read_index(path, card_path)
    except UserError:
        return None
    return index.card if index.checksums is not None else None


def _other_settings(card: dict, source, options: WriteOptions, identity: dict) -> str:
    """What the file of this card was written with, if this write would come to another one; else ""."""
    before, skipped = card.get("identity"), card.get("skipped")
    if not isinstance(before, dict):
        return "its card does not say which"
    other = [f"{name}={before.get(name)}" for name in _differing(before, identity)]
    if card.get("classes") != list(source.classes):  # the bytes do not depend on a class without photos
        other.append("other classes")
    if skipped and options.on_error == "raise":
        other.append(f"cfg.on_error=skip, which left out {len(skipped)}")
    return ", ".join(other)


def _publish(path: Path, card: dict) -> None:
    card_path = beton.card_path(path)
    with open(beton.partial_path(card_path), "w") as file:
        file.write(beton.card_text(card))
        file.flush()
        os.fsync(file.fileno())  # or a power cut might leave its name without its content
    card_path.unlink(missing_ok=True)  # never an old card beside a new file
    os.replace(beton.partial_path(path), path)
    with suppress(FileNotFoundError):  # another process may begin now, and finish this
        os.replace(beton.partial_path(card_path), card_path)
    beton.sync_folder(path.parent)
    journal_path(path).unlink(missing_ok=True)


def _is_published(file, path: Path) -> bool:
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(path))


def _finish_card(file, path: Path) -> None:
    """Rename the card that lies aside if its file has been published and a kill came in between; else drop it."""
    card_path = beton.card_path(path)
    aside = beton.partial_path(card_path)
    if not aside.exists():
        return
    # The partial file of the write that was killed is gone then: ours is new and empty
    empty = os.fstat(file.fileno()).st_size == 0
    if _is_published(file, path) or (empty and _card_of(path, aside)):
        os.replace(aside, card_path)
    aside.unlink(missing_ok=True)


def _clean_up(file, path: Path, resume: bool) -> None:
    """After an error or a signal."""
    _finish_card(file, path)
    if _is_published(file, path) or not resume:
        _drop_leftovers(path)


def _drop_leftovers(path: Path) -> None:
    journal_path(path).unlink(missing_ok=True)
    beton.partial_path(path).unlink(missing_ok=True)


def _lock(file, partial: Path, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another process may have published or removed the file between our opening and locking it
        if os.path.samestat(os.fstat(file.fileno()), os.stat(partial)):
            return
    except (BlockingIOError, FileNotFoundError):
        pass
    raise UserError(f"{path} is being written by another process", "wait for it to end") from None


def _card(path: Path, layout: Layout, source, options, about, identity, done: _Done, seconds: float) -> dict:
    """What the file says of itself; README.md lists the keys."""
    partial = beton.partial_path(path)
    images = layout.metadata["f0"][: layout.count]
    of_mode = {beton.MODE_NAMES[m]: images["mode"] == m for m in np.unique(images["mode"]).tolist()}
    counts = Counter(layout.metadata["f1"][: layout.count].tolist())
    with open(partial, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "card_version": beton.CARD_VERSION,
        "format_version": beton.VERSION,
        "num_samples": layout.count,
        "classes": list(source.classes),
        "class_to_idx": {name: i for i, name in enumerate(source.classes)},
        "samples_per_class": {name: counts.get(i, 0) for i, name in enumerate(source.classes)},
        "fields": {name: beton.FIELD_TYPES[t][0] for name, t in layout.fields.items()},
        "samples_per_mode": {name: int(chosen.sum()) for name, chosen in of_mode.items()},
        "bytes_per_mode": {name: int(layout.sizes[: layout.count][chosen].sum()) for name, chosen in of_mode.items()},
        "passed_through": int(layout.passed.sum()),
        "parameters": asdict(options),
        "source": about,
        "seed": options.seed,
        "identity": identity,
        "skipped": done.skipped,
        "resumed": done.resumed,
        "bytes": os.path.getsize(partial),
        "sha256": digest,
        "checksums": {
            "samples": base64.b64encode(layout.crc32s[: layout.count].tobytes()).decode(),
            "index": layout.index_crc32,
        },
        "seconds": round(seconds, 3),
        "versions": {name: version(name) for name in _PACKAGES},
    }
