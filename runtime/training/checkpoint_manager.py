"""When checkpoints are written: at epoch ends, every few minutes, and before a signal ends the run.

SIGTERM and SIGUSR1 (sent by Slurm and spot instances), SIGINT (Ctrl-C) and SIGHUP (a closed terminal, unless ignored
as after nohup) end a run with status 128 + their number, after the current step and a checkpoint. They end it
immediately where no step is in progress (waiting for a batch, validation) and where there is nothing new to save (the
first step, which may compile).
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

from runtime.launch import SIGNALS, Rank
from runtime.training import checkpoint
from runtime.training.checkpoint import Position

# Seconds. A terminal's Ctrl-C arrives twice within them: directly, and forwarded by the process that spawned this one
_SAME_CTRL_C = 1.0


class Interrupted(BaseException):
    """A signal arrived while no step was in progress. As for KeyboardInterrupt, no `except Exception` stops it."""


class CheckpointManager:
    """Context of a training run that writes its checkpoints and handles its signals.

    `capture(position, ranks)` gives the content of a checkpoint, `folder` is where rank 0 writes it, `minutes` the time
    between checkpoints within an epoch, or None.
    """

    def __init__(self, rank: Rank, capture: Callable, folder: Path | None, minutes: float | None):
        self._rank, self._capture, self._folder, self._minutes = rank, capture, folder, minutes
        self._received, self._received_at, self._pid = 0, 0.0, os.getpid()
        self._previous_handlers = {}
        self._saved_at, self._saved = time.monotonic(), None  # when, and which position
        # With several ranks none may leave while others wait for it
        self._alone = rank.world_size == 1
        # The present position, None within a step; and whether it is newer than the last checkpoint
        self._position: Callable[[], Position] | None = None
        self._unsaved = False
        self._interruptible = False

    def __enter__(self) -> "CheckpointManager":
        if threading.current_thread() is threading.main_thread():
            handled = [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
            self._previous_handlers = {number: signal.signal(number, self._handle) for number in handled}
        return self

    def __exit__(self, kind, error, trace) -> None:
        self._interruptible = False
        # A rank cannot continue without one that has left its validation
        left_alone = bool(self._received) and not self._alone and not self._unsaved
        try:
            if kind is Interrupted or (left_alone and kind is not None and issubclass(kind, RuntimeError)):
                if self._unsaved and self._position is not None:
                    self.save(self._position())
                self._leave(self._received)
        finally:
            for number, handler in self._previous_handlers.items():
                signal.signal(number, handler or signal.SIG_DFL)

    def _handle(self, number: int, frame) -> None:
        if os.getpid() != self._pid:
            return  # a process forked by a loader; this one ends it
        now = time.monotonic()
        if number == signal.SIGINT and self._received and now - self._received_at > _SAME_CTRL_C:
            raise KeyboardInterrupt
        if not self._received:
            self._received, self._received_at = number, now
        if self._interruptible:
            self._interrupt()

    def _interrupt(self) -> None:
        """Raise Interrupted if a signal has arrived; from here on a signal raises it on arrival."""
        self._interruptible = not self._received
        if self._received:
            raise Interrupted

    def step_begins(self) -> None:
        """A batch has arrived: nothing can be saved until the step has ended."""
        self._interruptible, self._position = False, None
        if self._alone and not self._unsaved:
            self._interrupt()

    def step_ended(self, position: Callable[[], Position]) -> None:
        """Save if a checkpoint is due; raise SystemExit after a signal. `position()` gives the present position."""
        self._interruptible, self._unsaved, self._position = False, True, position
        number, due = self._requested()
        if number or due:
            self.save(position())
        if number:
            self._leave_together(number)
        if self._alone:
            self._interrupt()

    def training_ended(self, position: Position) -> None:
        """The training part of an epoch has ended; signals end its validation immediately."""
        self._position = lambda: position
        if not self._alone:  # the ranks may leave the validation one by one
            self.save(position)
            if number := self._requested()[0]:
                self._leave_together(number)
        self._interrupt()

    def epoch_ended(self, position: Position) -> None:
        """Write a checkpoint."""
        self.save(position)
        if self._alone:
            self._interrupt()

    def save(self, position: Position) -> None:
        """Write a checkpoint and keep the previous one. All ranks call this together."""
        self._interruptible = False
        ranks = self._gather({"generators": checkpoint.generators(), "sums": position.sums})
        if self._rank.first:
            path = self._folder / checkpoint.NAME
            checkpoint.save(self._capture(position, ranks), path, path.with_name(checkpoint.OLDER_NAME))
        self._saved_at, self._saved, self._unsaved = time.monotonic(), position, False

    def _requested(self) -> tuple[int, bool]:
        """The signal that any rank has received, or 0; and whether a checkpoint is due."""
        minutes = self._minutes
        due = self._rank.first and minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        if self._alone:
            return self._received, due
        requested = torch.tensor([self._received, due])
        dist.all_reduce(requested, dist.ReduceOp.MAX)
        number, due = requested.tolist()
        return number, bool(due)

    def _gather(self, own: dict) -> list[dict]:
        """The dicts of all ranks."""
        if self._alone:
            return [own]
        ranks = [None] * self._rank.world_size
        dist.all_gather_object(ranks, own)
        return ranks

    def _leave_together(self, number: int) -> None:
        if not self._alone:  # the parent ends the other ranks when the first has left
            dist.all_reduce(torch.zeros(1))
        self._leave(number)

    def _leave(self, number: int) -> None:
        if self._rank.first:
            saved = self._saved
            state = "no step was made"
            if saved:
                state = f"the checkpoint is after {saved.epoch} epochs and {saved.batch} batches"
            if (self._folder / checkpoint.NAME).exists():
                state += f"; resume with --training.resume={self._folder}"
            print(f"=> {signal.Signals(number).name}: {state}", flush=True)
            print("interrupted", file=sys.stderr, flush=True)
        raise SystemExit(128 + number)
