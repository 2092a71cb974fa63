"""Loaders: each a file here with `needs`, `reads` and `open_loader(task)`.

`needs` maps the modules that it imports to the packages to install; `reads` is "beton", "photos" (a
folder with one folder for each class) or "any".

A loader is an iterable: each iteration is one epoch, the first one being task.epoch. It yields
`images, labels`: images N x C x H x W in channels_last memory format, normalised, of the task's
dtype (uint8 where the stages have no normalize), and labels (int64, N), both on the task's device.
It has `len()` (batches of this rank in an epoch), `num_samples` (of the whole data set), `classes`
(names), `description` (how it runs, for the log) and `close()`. A batch stays as it is for as long as it is held.
The first iteration leaves out its first `task.start` batches without reading them, if it can (a run that was
interrupted goes on in mid-epoch). `samples(epoch, batch)` names the samples of a batch, for error messages.

What happens to a sample that cannot be decoded is `task.on_error`; a loader's `on_error` names those that it knows
(without it: raise), its loaders' `left_out` lists the damaged samples of the epoch so far, each once. A module with
`verifies` knows `task.verify`.
- raise: DamagedSample, at its batch.
- skip: it is left out, and its row gets the next good sample of the order that no batch has yet (batches are
  prepared ahead). So batches stay full, and an epoch is shorter by what is lacking at its end: `drop_last` tasks
  read what they would else drop before they do with a batch less. Not for `drop_last` tasks of several
  ranks, which would no longer make the same number of steps.
- substitute: its row gets another sample, drawn from (seed, epoch, sample), with its own label. The number of batches
  stays the same.
"""

import difflib
import importlib
import importlib.util
import os
import pkgutil
import sys
from dataclasses import dataclass

import numpy as np
import torch

from pipelines import orders
from pipelines.draws import bits, sample_keys
from pipelines.errors import DamagedSample, UserError

# Pages that are mixed at a time when a .beton is not held in memory: FFCV's 2 * batch_size.
_WINDOW_PER_BATCH = 2
# Substitutes for a damaged sample that are tried before it is an error; their draws are none of a stage's.
SUBSTITUTES, _SUBSTITUTE = 100, 1 << 20
_MOST_NAMED = 20


@dataclass(frozen=True)
class Task:
    """All that a loader is told.

    `dataset`: path of a .beton or of a folder with one folder for each class. `stages`: pipeline as
    text. `batch_size`: of this rank. `workers`: threads or processes. `shuffle`, `drop_last`: for
    training. `in_memory`: the data set fits into memory (else it is read nearly in sequence).
    `repeats`: repeated augmentation, so many different views of a photo in an epoch that is as long as
    before (pipelines/orders.py). `start`: batches of the first epoch to leave out. `on_error`: see above.
    `verify`: compare each payload with its checksum.
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
    repeats: int = 1
    start: int = 0
    on_error: str = "raise"
    verify: bool = False


def epoch_samples(
    task: Task, num_samples: int, epoch: int, pages: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """What every loader reads in an epoch: this rank's samples (int64) in their order, and their keys (uint64).

    `pages` (int64, one a sample) is where each lies in its file, for data sets that are not held in memory.
    """
    order = np.arange(num_samples)
    if task.shuffle and (task.in_memory or pages is None):
        order = orders.random_order(num_samples, task.seed, epoch)
    elif task.shuffle:
        order = orders.quasi_random_order(pages, _WINDOW_PER_BATCH * task.batch_size, task.seed, epoch)
    views = order  # sample + num_samples * number of the view
    if task.repeats > 1:
        views = orders.repeated(order, task.repeats)[: orders.repeated_length(num_samples, task.world_size)]
    share = orders.rank_share(views, task.batch_size, task.rank, task.world_size, task.drop_last)
    return share % num_samples, sample_keys(task.seed, epoch, share)


def batch_samples(task: Task, num_samples: int, epoch: int, batch: int, pages: np.ndarray | None = None) -> np.ndarray:
    """The samples (int64) of one batch as the order has them: none is left out or replaced by `on_error`."""
    samples, _ = epoch_samples(task, num_samples, epoch, pages)
    return samples[batch * task.batch_size : (batch + 1) * task.batch_size]


def batches_in_epoch(task: Task, num_samples: int) -> int:
    """Batches of this rank in an epoch; raises UserError when there are none."""
    length = num_samples if task.repeats == 1 else orders.repeated_length(num_samples, task.world_size)
    share = len(range(task.rank, length, task.world_size))
    batches = -(-share // task.batch_size)
    if task.drop_last:
        batches = length // (task.batch_size * task.world_size)
    if not batches:
        raise UserError(
            f"{task.dataset} has {num_samples} samples, too few for one batch of {task.batch_size} "
            f"on each of {task.world_size} ranks",
            "make the batch size smaller",
        )
    return batches


def usable_workers(task: Task) -> int:
    """task.workers, but no more than there are cores for this process."""
    return max(1, min(task.workers, len(os.sched_getaffinity(0))))


def describe_workers(task: Task, kind: str) -> str:
    """E.g. "2 threads (not 12: there are no more cores)", for the log."""
    workers = usable_workers(task)
    return f"{workers} {kind}" + (f" (not {task.workers}: there are no more cores)" if workers < task.workers else "")


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
    module = importlib.import_module(f"pipelines.loaders.{name}")
    if task.on_error not in getattr(module, "on_error", ("raise",)):
        raise UserError(f"the loader '{name}' cannot {task.on_error} damaged samples", "set data.on_error=raise")
    if task.verify and not getattr(module, "verifies", False):
        raise UserError(f"the loader '{name}' has no checksums to compare with", "set data.verify=0")
    if task.on_error == "skip" and task.drop_last and task.world_size > 1:
        raise UserError(
            "with data.on_error=skip the ranks would not make the same number of steps",
            "set data.on_error=substitute, or raise",
        )
    return module.open_loader(task)


def substitute_of(key: int, attempt: int, num_samples: int) -> int:
    """The sample to try in place of a damaged one that has this key."""
    return int(bits(np.uint64(key), _SUBSTITUTE, attempt)) % num_samples


class LeftOut(dict):
    """The damaged samples of an epoch, each once, in the order in which they were found, and why.

    The first _MOST_NAMED ever are told on stderr, and then once that there are more.
    """

    def __init__(self):
        self._told, self._said_that_there_are_more = set(), False

    def add(self, error: DamagedSample, instead: str) -> None:
        """Note a damaged sample; `instead` is what was done, e.g. "left out"."""
        self.setdefault(error.sample, error.why)
        if error.sample in self._told or self._said_that_there_are_more:
            return
        if len(self._told) < _MOST_NAMED:
            self._told.add(error.sample)
            print(f"warning: {error.what}; it is {instead}", file=sys.stderr)
        else:
            self._said_that_there_are_more = True
            print(f"warning: more samples of {error.dataset} are damaged, counted in left_out only", file=sys.stderr)
