"""When checkpoints are written: at epoch ends, every few minutes, and before a signal ends the run.

SIGTERM and SIGUSR1 (sent by Slurm and spot instances), SIGINT (Ctrl-C) and SIGHUP (a closed terminal, unless ignored
as after nohup) end a run with status 128 + their number, after the current step and a checkpoint. They end it
immediately where no step is in progress (waiting for a batch, validation) and where there is nothing new to save (the
first step, which may compile).

A checkpoint is copied to the host's memory and written in a thread, for which the next one waits.
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

from beton.errors import UserError
from runtime.launch import SIGNALS, Rank
from runtime.training import checkpoint
from runtime.training.background import BackgroundWriter, on_host
from runtime.training.checkpoint import Position

# Seconds. A terminal's Ctrl-C arrives twice within them: directly, and forwarded by the process that spawned this one
_SAME_CTRL_C = 1.0
# Several ranks vote about signals and checkpoints so often (seconds), but at least every so many steps
_VOTE_SECONDS, _VOTE_STEPS = 1.0, 100


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
        # Several ranks: what is to be saved if the validation is interrupted
        self._gathered: tuple[Position, list[dict]] | None = None
        self._steps, self._vote_after, self._voted_at = 0, 1, time.monotonic()
        self.writer = BackgroundWriter()

    def __enter__(self) -> "CheckpointManager":
        if threading.current_thread() is threading.main_thread():
            handled = [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
            self._previous_handlers = {number: signal.signal(number, self._handle) for number in handled}
        return self

    def __exit__(self, kind, error, trace) -> None:
        self._interruptible = False
        # A rank cannot continue without one that has left its validation
        left_alone = bool(self._received) and self._gathered is not None
        try:
            if kind is Interrupted or (left_alone and kind is not None and issubclass(kind, RuntimeError)):
                if self._gathered is not None:
                    self._write(*self._gathered)
                elif self._unsaved and self._position is not None:
                    self.save(self._position())
                self._leave(self._received)
            self.writer.close()
        except UserError as unwritten:
            if kind is None or kind is Interrupted:
                raise
            print(f"=> {unwritten}", flush=True)
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
        self._interruptible, self._position, self._gathered = False, None, None
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
            if number := self._vote()[0]:
                self.save(position)
                self._leave_together(number)
            self._gathered = position, self._gather(position)
        self._interrupt()

    def epoch_ended(self, position: Position) -> None:
        """Write a checkpoint."""
        self.save(position)
        if self._alone:
            self._interrupt()

    def save(self, position: Position) -> None:
        """Write a checkpoint and keep the previous one. All ranks call this together."""
        self._interruptible = False
        self._write(position, self._gather(position))

    def _write(self, position: Position, ranks: list[dict]) -> None:
        if self._rank.first:
            path = self._folder / checkpoint.NAME
            content = on_host(self._capture(position, ranks))
            self.writer.start(checkpoint.save, content, path, path.with_name(checkpoint.OLDER_NAME))
        self._saved_at, self._saved, self._unsaved, self._gathered = time.monotonic(), position, False, None

    def _requested(self) -> tuple[int, bool]:
        """The signal that any rank has received, or 0; and whether a checkpoint is due."""
        if self._alone:
            return self._received, self._due()
        self._steps += 1
        return self._vote() if self._steps >= self._vote_after else (0, False)

    def _due(self) -> bool:
        minutes = self._minutes
        return self._rank.first and minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes

    def _vote(self) -> tuple[int, bool]:
        """The same of all ranks, which call it together; it costs them an exchange over the network.

        Rank 0 says after how many steps they do so again: about a second, or at once where every step is saved.
        """
        requested = torch.tensor([self._received, self._due(), self._steps_to_vote()])
        dist.all_reduce(requested, dist.ReduceOp.MAX)
        number, due, self._vote_after = requested.tolist()
        self._steps = 0
        return number, bool(due)

    def _steps_to_vote(self) -> int:
        if not self._rank.first:
            return 0
        now = time.monotonic()
        seconds, self._voted_at = max(now - self._voted_at, 1e-3), now
        wanted = _VOTE_SECONDS if self._minutes is None else min(_VOTE_SECONDS, 60 * self._minutes)
        return min(max(1, round(self._steps * wanted / seconds)), _VOTE_STEPS)

    def _gather(self, position: Position) -> list[dict]:
        """What each rank adds to a checkpoint. All ranks call this together."""
        own = {"generators": checkpoint.generators(), "sums": position.sums}
        if self._alone:
            return [own]
        ranks = [None] * self._rank.world_size
        dist.all_gather_object(ranks, own)
        return ranks

    def _leave_together(self, number: int) -> None:
        self.writer.wait()
        if not self._alone:  # the parent ends the other ranks when the first has left
            dist.all_reduce(torch.zeros(1))
        self._leave(number)

    def _leave(self, number: int) -> None:
        self.writer.close()
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
