"""Streams and events where there is no GPU: what is done with them is noted, and copies can lag behind.

`pretend(monkeypatch)` lets the copy to the device run on the CPU: batches of "cpu" tasks take the way that those of a
GPU take.
"""

import ctypes
import functools
import random
from contextlib import contextmanager

import numpy as np
import torch

from beton.loading import base, buffers, to_device


class Cuda:
    """The GPU that is not there. `notes`: what has happened, in order.

    With `lag` (a generator of random numbers) a copy gives blank tensors at first; what it copies is read when its
    event is over, which a draw decides each time that one is asked for. Without, it is done at once.
    """

    def __init__(self, lag: random.Random | None):
        self.notes, self.lag, self.copying = [], lag, False
        self.begun, self.events = [], []  # copies without an event; events that are not over

    def finish_events(self, count: int) -> None:
        """The first `count` that are not over."""
        for event in self.events[:count]:
            for target, source in event.copies:
                target.copy_(source)
            event.over = True
        del self.events[:count]

    def to(self, tensor: torch.Tensor) -> torch.Tensor:
        blank = torch.full_like(tensor, 99)
        # By its address, as a GPU knows it: nothing here keeps the memory from being used again
        memory = (ctypes.c_uint8 * tensor.nbytes).from_address(tensor.data_ptr())
        there = torch.from_numpy(np.ctypeslib.as_array(memory)).view(tensor.dtype)
        self.begun.append((blank, there.as_strided(tensor.shape, tensor.stride())))
        return blank


def pretend(monkeypatch, lag: random.Random | None = None) -> Cuda:
    """Until the end of the test."""
    cuda, to = Cuda(lag), torch.Tensor.to

    class Stream:
        def __init__(self, device):
            cuda.notes.append("stream made")

        def synchronize(self):
            cuda.finish_events(len(cuda.events))
            cuda.notes.append("synchronized")

        def wait_event(self, event):
            cuda.notes.append(("waits for", event.number))

    class Event:
        made = 0

        def __init__(self):
            self.number, self.over = Event.made, False
            Event.made += 1

        def record(self, stream):
            self.copies, cuda.begun = cuda.begun, []
            cuda.events.append(self)
            if lag is None:
                cuda.finish_events(1)
            cuda.notes.append(("copied", self.number))

        def query(self):
            if lag and lag.random() < 0.4:
                cuda.finish_events(1)
            return self.over

    @contextmanager
    def within(stream):
        cuda.copying = True
        yield
        cuda.copying = False

    def copied(tensor, *given, **options):
        lags = lag and cuda.copying and options.get("non_blocking")
        return cuda.to(tensor) if lags else to(tensor, *given, **options)

    own = Stream("the consumer's")
    cuda.notes.clear()
    for name, thing in (("Stream", Stream), ("Event", Event), ("stream", within), ("current_stream", lambda _: own)):
        monkeypatch.setattr(torch.cuda, name, thing)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: cuda.notes.append("recorded"))
    monkeypatch.setattr(torch.Tensor, "to", copied)
    monkeypatch.setattr(base.Pipeline, "on_gpu", True)
    monkeypatch.setattr(buffers, "_page_locked", np.empty)
    # Its memory of streams is the process's; these are of one test
    monkeypatch.setattr(to_device, "_stream", functools.cache(to_device._stream.__wrapped__))
    return cuda
