"""Which files of a folder a data set is, where it lies in several."""

import os
import re
from glob import glob, has_magic

from beton.errors import UserError

# Words that files of a split have in their paths
_WORDS = {"train": ("train", "training"), "val": ("validation", "valid", "val", "dev"), "test": ("test", "eval")}
_RANGE, _CHOICE = re.compile(r"\{(\d+)\.\.(\d+)\}"), re.compile(r"\{([^{}]*,[^{}]*)\}")


def find(data_dir: str | None, endings: tuple[str, ...], split: str, what: str) -> list[str]:
    """The files of a split, sorted: those in a folder and below, or those of a pattern (*, ?, {000..146}, {a,b}).

    `what` they are, for messages. Raises UserError where there are none, or some of a range are missing.
    """
    if not data_dir:
        raise UserError("no `data_dir` is given", f"give the folder that holds {what}")
    if os.path.isfile(data_dir):
        return [data_dir]
    if os.path.isdir(data_dir):
        return _of_split(data_dir, [path for path in _below(data_dir) if path.endswith(endings)], split, what)
    paths = []
    for path in _expanded(data_dir):
        found = sorted(glob(path)) if has_magic(path) else [path]
        if not found or not os.path.isfile(found[0]):
            raise UserError(f"there is no {path}", f"give a folder, or a pattern, of {what}")
        paths += found
    return paths


def holds(folder: str, endings: tuple[str, ...]) -> bool:
    """Whether there is such a file in a folder or below."""
    return any(path.endswith(endings) for path in _below(folder))


def _below(folder: str) -> list[str]:
    """Every file, in the order of their paths."""
    paths = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [os.path.join(parent, name) for name in names if not name.startswith(".")]
    return sorted(paths)


def _of_split(folder: str, paths: list[str], split: str, what: str) -> list[str]:
    if not paths:
        raise UserError(f"{folder} holds no {what}", "give another folder")
    of_split = {name: [path for path in paths if _names(path[len(folder) :], words)] for name, words in _WORDS.items()}
    there = [name for name, found in of_split.items() if found]
    if not there:
        return paths  # nothing says that there are several splits
    # Many sets have no validation split, but one for tests
    wanted = "test" if split == "val" and "val" not in there else split
    if wanted not in there:
        raise UserError(f"{folder} holds {what} of {' and '.join(there)}, not of {split}", "give another folder")
    return of_split[wanted]


def _names(path: str, words: tuple[str, ...]) -> bool:
    """Whether a path has one of the words: 'data/train-00000-of-00294.parquet' has 'train'."""
    return not set(re.split(r"[^a-z]+", path.lower())).isdisjoint(words)


def _expanded(pattern: str) -> list[str]:
    """The paths that a pattern with braces stands for, as in bash."""
    found = _RANGE.search(pattern)
    if found:
        first, last = found.groups()
        middles = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    else:
        found = _CHOICE.search(pattern)
        if not found:
            return [pattern]
        middles = found[1].split(",")
    head, tail = pattern[: found.start()], pattern[found.end() :]
    return [path for middle in middles for path in _expanded(f"{head}{middle}{tail}")]
