"""How far a loader is: for loops of the user's own, which stop and go on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from beton.errors import UserError
from beton.loading.base import Pipeline

# What must be the same for a position to mean the same batch
_BATCH = ("batch_size", "world_size")
_SAME = ("seed", *_BATCH, "shuffle", "drop_last", "in_memory", "repeats")


class Positioned(Pipeline):
    """A pipeline that knows how many batches of an epoch it has handed out, and that can be pickled.

    `epoch` is the one that the next `for` begins with; it may be set.
    """

    _absolute: str  # path of the data set, also where the process has gone to another folder since
    _begun: tuple[int, int] | None = None  # the epoch that is under way, and how many of its batches are handed out
    _start: tuple[int, int] | None = None  # an epoch, and the batch with which it will begin

    def __iter__(self) -> Iterator[tuple]:
        """The batches of the next epoch: of `epoch`, which then counts one more; the rest of them after
        load_state_dict()."""
        epoch, start = self.epoch, self._next_start()
        batches = self.batches(epoch, start)
        self.epoch, self._start, self._begun = epoch + 1, None, (epoch, start)
        return self._counted(self._begun, batches)

    def _counted(self, mine: tuple[int, int], batches: Iterator[tuple]) -> Iterator[tuple]:
        epoch, start = mine
        with closing(batches):
            for number, batch in enumerate(batches, start + 1):
                if self._begun is mine:  # else another epoch has begun
                    mine = self._begun = epoch, number
                yield batch
        if self._begun is mine and not self._closed:
            self._begun = None

    def _next_start(self) -> int:
        return self._start[1] if self._start and self._start[0] == self.epoch else 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next `for` begins; if it is that of load_state_dict(), with the batch that was said."""
        self.epoch, self._begun = int(epoch), None

    def state_dict(self) -> dict[str, Any]:
        """The position: the epoch, how many of its batches were handed out, and what they depend on."""
        epoch, batch = self._begun or (self.epoch, self._next_start())
        state = {"epoch": epoch, "batch": batch, "num_samples": self.num_samples, **self._depends_on()}
        return state | ({"file_by_file": True} if self.groups(epoch) is not None else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another loader of the same samples, seed and batches was. Raises UserError if it had others."""
        now = {"num_samples": self.num_samples, **self._depends_on()}
        if _batch_of(state) == _batch_of(now):  # the same samples, whatever the number of ranks
            now |= {name: state[name] for name in _BATCH}
        for name, value in now.items():
            if state.get(name) != value:
                what = f"the state is of a loader with {name}={state.get(name)}, and this one has {value}"
                raise UserError(what, "open it with the same, or begin an epoch by set_epoch()")
        if state["batch"] and state.get("file_by_file", False) != (self.groups(state["epoch"]) is not None):
            what = "the state is of an epoch that has the files of URLs one after another, or this one is and it is not"
            raise UserError(what, "open the data set from where it was, or begin an epoch by set_epoch()")
        self.epoch, self._begun = int(state["epoch"]), None
        self._start = self.epoch, int(state["batch"])

    def _depends_on(self) -> dict[str, Any]:
        window = self.window
        return {name: getattr(self.task, name) for name in _SAME} | {"window": window and list(window)}

    # In another process

    def _options(self) -> dict[str, Any]:
        """What makes it what it is besides the task."""
        return {}

    def __reduce__(self):
        task = dataclasses.replace(self.task, dataset=self._absolute)
        return _opened_again, (type(self), task, self._options(), self.state_dict())


def _batch_of(state: dict[str, Any]) -> int:
    """Samples of a step of all ranks."""
    return int(state.get("batch_size") or 0) * int(state.get("world_size") or 0)


def _opened_again(kind: type[Positioned], task, options: dict[str, Any], state: dict[str, Any]) -> Positioned:
    loader = kind.__new__(kind)
    vars(loader).update(options)
    Pipeline.__init__(loader, task)
    loader.load_state_dict(state)
    return loader
