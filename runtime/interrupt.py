"""When checkpoints are written: at epoch ends, every so many minutes, and before a signal ends the run.

SIGTERM and SIGUSR1 (what Slurm and spot instances send), SIGINT (Ctrl-C) and SIGHUP (a closed terminal, unless it is
ignored as after nohup) end a run with status 128 + their number, after the step that is being made and a checkpoint.
Where nothing is half done (waiting for a batch, validation) and where there is nothing new to save (the first step,
which may compile), that is at once.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from runtime import checkpoint
from runtime.checkpoint import Position
from runtime.launch import SIGNALS, Place

# A terminal's Ctrl-C reaches this process directly and from the one that started it: twice, but it is one
_SAME_CTRL_C = 1.0


class Interrupted(BaseException):
    """A signal arrived where nothing is half done. Like KeyboardInterrupt, no `except Exception` stops it."""


class Keeper:
    """Context of a training run that writes its checkpoints; signals that arrive in it are answered by it.

    `capture(position, ranks)` gives the content of a checkpoint, `folder` is where rank 0 writes it, `minutes`
    the time between checkpoints within an epoch, or None.
    """

    def __init__(self, place: Place, capture: Callable, folder: Path | None, minutes: float | None):
        self._place, self._capture, self._folder, self._minutes = place, capture, folder, minutes
        self._received, self._received_at, self._pid = 0, 0.0, os.getpid()
        self._before = {}
        self._saved_at, self._saved = time.monotonic(), None  # when, and what
        # With several ranks none may leave while the others wait for it
        self._alone = place.world_size == 1
        # Where the run stands, None within a step; and whether that is newer than the last checkpoint
        self._position: Callable[[], Position] | None = None
        self._news = False
        self._at_once = False

    def __enter__(self) -> "Keeper":
        if threading.current_thread() is threading.main_thread():
            heeded = [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._handle) for number in heeded}
        return self

    def __exit__(self, kind, error, trace) -> None:
        self._at_once = False
        # A rank that waits for one which has left its validation cannot go on
        left_alone = bool(self._received) and not self._alone and not self._news
        try:
            if kind is Interrupted or (left_alone and kind is not None and issubclass(kind, RuntimeError)):
                if self._news and self._position is not None:
                    self.save(self._position())
                self._leave(self._received)
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler or signal.SIG_DFL)

    def _handle(self, number: int, frame) -> None:
        if os.getpid() != self._pid:
            return  # a process that a loader has forked; this one ends it
        now = time.monotonic()
        if number == signal.SIGINT and self._received and now - self._received_at > _SAME_CTRL_C:
            raise KeyboardInterrupt
        if not self._received:
            self._received, self._received_at = number, now
        if self._at_once:
            self._end_at_once()

    def _end_at_once(self) -> None:
        """From here on a signal raises Interrupted where it arrives, and one that has arrived does it now."""
        self._at_once = not self._received
        if self._received:
            raise Interrupted

    def step_begins(self) -> None:
        """A batch has come: until the step has ended there is nothing that could be saved."""
        self._at_once, self._position = False, None
        if self._alone and not self._news:
            self._end_at_once()

    def step_ended(self, position: Callable[[], Position]) -> None:
        """Save if it is time; after a signal raise SystemExit. `position()` is where the run now stands."""
        self._at_once, self._news, self._position = False, True, position
        number, due = self._asked()
        if number or due:
            self.save(position())
        if number:
            self._leave_together(number)
        if self._alone:
            self._end_at_once()

    def training_ended(self, position: Position) -> None:
        """The training of an epoch is done, and its validation begins: signals end that at once."""
        self._position = lambda: position
        if not self._alone:  # they may leave the validation one by one
            self.save(position)
            if number := self._asked()[0]:
                self._leave_together(number)
        self._end_at_once()

    def epoch_ended(self, position: Position) -> None:
        """Write a checkpoint."""
        self.save(position)
        if self._alone:
            self._end_at_once()

    def save(self, position: Position) -> None:
        """Write a checkpoint, and keep the one before it. All ranks call this together."""
        self._at_once = False
        ranks = self._gather({"generators": checkpoint.generators(), "sums": position.sums})
        if self._place.first:
            path = self._folder / checkpoint.NAME
            checkpoint.save(self._capture(position, ranks), path, path.with_name(checkpoint.OLDER_NAME))
        self._saved_at, self._saved, self._news = time.monotonic(), position, False

    def _asked(self) -> tuple[int, bool]:
        """The signal that any rank has received, or 0; and whether it is time for a checkpoint."""
        minutes = self._minutes
        due = self._place.first and minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        if self._alone:
            return self._received, due
        asked = torch.tensor([self._received, due])
        dist.all_reduce(asked, dist.ReduceOp.MAX)
        number, due = asked.tolist()
        return number, bool(due)

    def _gather(self, mine: dict) -> list[dict]:
        """What each rank has for itself."""
        if self._alone:
            return [mine]
        ranks = [None] * self._place.world_size
        dist.all_gather_object(ranks, mine)
        return ranks

    def _leave_together(self, number: int) -> None:
        if not self._alone:  # whoever started the ranks ends the others when the first has left
            dist.all_reduce(torch.zeros(1))
        self._leave(number)

    def _leave(self, number: int) -> None:
        if self._place.first:
            saved = self._saved
            about = f"the checkpoint is of {saved.epoch} epochs and {saved.batch} batches" if saved else "no step made"
            if (self._folder / checkpoint.NAME).exists():
                about += f"; --training.resume={self._folder} goes on"
            print(f"=> {signal.Signals(number).name}: {about}", flush=True)
            print("interrupted", file=sys.stderr, flush=True)
        raise SystemExit(128 + number)
