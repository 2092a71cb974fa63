"""Loaders: each a file here with `needs`, `reads` and `open_loader(task)`.

`needs` maps the modules that it imports to the packages to install; `reads` is "beton", "photos" (a
folder with one folder for each class) or "any".

A loader is an iterable: each iteration is one epoch, the first one being task.epoch. It yields
`images, labels`: images N x C x H x W in channels_last memory format, normalised, of the task's
dtype (uint8 where the stages have no normalize), and labels (int64, N), both on the task's device.
It has `len()` (batches of this rank in an epoch), `num_samples` (of the whole data set), `classes`
(names), `description` (how it runs, for the log) and `close()`. A batch stays as it is for as long as it is held.
"""

import difflib
import importlib
import importlib.util
import pkgutil
from dataclasses import dataclass

import torch

from pipelines.errors import UserError


@dataclass(frozen=True)
class Task:
    """All that a loader is told.

    `dataset`: path of a .beton or of a folder with one folder for each class. `stages`: pipeline as
    text. `batch_size`: of this rank. `workers`: threads or processes. `shuffle`, `drop_last`: for
    training. `in_memory`: the data set fits into memory (else it is read nearly in sequence).
    """

    dataset: str
    stages: str
    batch_size: int
    workers: int
    seed: int = 0
    epoch: int = 0
    rank: int = 0
    world_size: int = 1
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    shuffle: bool = True
    drop_last: bool = True
    in_memory: bool = True


def known() -> list[str]:
    """Names of all loaders: the files in this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def missing(name: str) -> list[str]:
    """Packages that the loader `name` needs and that are not installed; raises UserError for an unknown name."""
    if name not in known():
        close = difflib.get_close_matches(name, known(), 1)
        raise UserError(
            f"unknown loader '{name}'" + (f" (did you mean '{close[0]}'?)" if close else ""),
            f"use one of {', '.join(known())}, or add pipelines/loaders/{name}.py",
        )
    needs = importlib.import_module(f"pipelines.loaders.{name}").needs
    return [package for module, package in needs.items() if importlib.util.find_spec(module) is None]


def reads(name: str) -> str:
    """What the loader `name` reads: "beton", "photos" or "any"."""
    return importlib.import_module(f"pipelines.loaders.{name}").reads


def open_loader(name: str, task: Task):
    """Open the loader `name` for a task; raises UserError when it is unknown or lacks a package."""
    lacks = missing(name)
    if lacks:
        raise UserError(f"loader '{name}' needs {', '.join(lacks)}", f"pip install {' '.join(lacks)}")
    return importlib.import_module(f"pipelines.loaders.{name}").open_loader(task)
