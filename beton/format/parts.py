"""Several .betons that are one data set: which files are meant, and whether they are all the parts of one write.

A write may be done in parts, by as many machines: `train-3-of-8.beton` holds the third eighth of the samples, and its
card says of which write it is.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from beton.errors import UserError

_ADVICE = "give the path of a .beton, several with commas, or a pattern such as 'train-*.beton'"
# Parameters on which the samples of the whole do not depend
_NO_MATTER = ("part", "num_workers", "chunk_size", "on_error")


def parse_part(text: str) -> tuple[int, int]:
    """'3/8' as (3, 8). Raises UserError."""
    number, slash, of = text.partition("/")
    if slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of) < 10**6:
        return int(number), int(of)
    raise UserError(f"`part`={text!r} is not the number of a part of several", "give it as '3/8': from '1/8' to '8/8'")


def part_path(path: str | Path, part: str) -> Path:
    """Where a part of the file `path` lies: train.beton and '3/8' are train-3-of-8.beton."""
    (number, of), path = parse_part(part), Path(path)
    if not path.name:  # as "/" and ".", which the writer will refuse
        return path
    return path.with_name(f"{path.stem}-{number:0{len(str(of))}d}-of-{of}{path.suffix}")


def text_of(path: str | Path | Sequence[str | Path]) -> str:
    """A path, a pattern or several of either as one text, of which paths_of() makes them again."""
    if isinstance(path, (str, Path)):
        return str(path)
    paths = list(map(str, path))
    wrong = next((path for path in paths if "," in path), None)
    if wrong or not paths:
        what = f"the path {wrong} has a comma" if wrong else "no .beton is given"
        raise UserError(what, "give it another name" if wrong else _ADVICE)
    return ",".join(paths)


def paths_of(text: str) -> list[str]:
    """The files that a path, a pattern (*, ?, [0-9]), or several of either with commas stand for.

    Raises UserError for a pattern that no file fits; a path need not be one of a file.
    """
    if os.path.exists(text):
        return [text]
    paths = []
    for path in text.split(","):
        found = [name for name in sorted(glob(path)) if not name.endswith(".json")] if has_magic(path) else [path]
        if not found:
            raise UserError(f"there is no file {path}", _ADVICE)
        paths += found
    return paths


def absolute(text: str) -> str:
    """The same for a process in another folder."""
    if os.path.exists(text):
        return os.path.abspath(text)
    return ",".join(path if is_url(path) else os.path.abspath(path) for path in text.split(","))


def is_url(path: str) -> bool:
    """Whether a path is a URL, such as s3://bucket/train.beton."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path) is not None


def is_remote(text: str) -> bool:
    """Whether one of the files that a text stands for is to be fetched from elsewhere."""
    return any(map(is_url, text.split(","))) and not os.path.exists(text)


def in_order(files: list[Any], text: str) -> list[Any]:
    """Open files in the order in which they are one data set: parts by their number, all others as they are given.

    Raises UserError, which names it, for a file that is given twice, a part that is missing, and one of another write.
    """
    path, times = Counter(file.path for file in files).most_common(1)[0]
    if times > 1:
        raise UserError(f"{path} is given twice", "give each file once")
    parts = {file.path: _part(file) for file in files}
    first = next((file for file in files if parts[file.path]), None)
    if first is None:
        return files
    of, number_of = parts[first.path]["of"], {}
    for file in files:
        part = parts[file.path]
        if part is None or (part["of"], part["write"]) != (of, parts[first.path]["write"]):
            what = f"{file.path} is not of the same write as {first.path} ({_why(first, file, part)})"
            raise UserError(what, "give the parts of one write")
        if part["number"] in number_of:
            what = f"{file.path} and {number_of[part['number']].path} are both part {part['number']} of {of}"
            raise UserError(what, "give one of them")
        number_of[part["number"]] = file
    missing = [str(number) for number in range(1, of + 1) if number not in number_of]
    if missing:
        some = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        what = f"of the {of} parts of {text}, {some} {'is' if len(missing) == 1 else 'are'} missing"
        raise UserError(what, f"write it (`part`='{missing[0]}/{of}'), or give its path too")
    return [number_of[number] for number in sorted(number_of)]


def of_the_write(card: dict) -> dict | None:
    """The parameters in a card without those that may differ from part to part; None where it has none."""
    given = card.get("parameters")
    return {name: value for name, value in given.items() if name not in _NO_MATTER} if isinstance(given, dict) else None


def _part(file: Any) -> dict | None:
    """What the card of a file says of the part that it is."""
    part = (file.card or {}).get("part")
    if not isinstance(part, dict) or not all(isinstance(part.get(name), int) for name in ("number", "of")):
        return None
    return part if 1 <= part["number"] <= part["of"] and isinstance(part.get("write"), str) else None


def _why(first: Any, file: Any, part: dict | None) -> str:
    """What shows that a file is not of the write that `first` is of."""
    if part is None:
        return "its card does not say that it is a part"
    expected, given = (of_the_write(f.card) or {} for f in (first, file))
    for name, value in expected.items():
        if given.get(name) != value:
            return f"{name}={given.get(name)} instead of {value}"
    return "other samples, or another number of parts"
