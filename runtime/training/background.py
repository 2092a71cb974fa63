"""Files written in a thread of their own, while training goes on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch


class BackgroundWriter:
    """Runs one write at a time. An error of one is raised when the next is asked for, or by wait()."""

    def __init__(self):
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._running: Future | None = None

    def start(self, write: Callable, *arguments) -> None:
        """Have write(*arguments) done, when the one before it has ended."""
        self.wait()
        self._running = self._thread.submit(write, *arguments)

    def wait(self) -> None:
        """Until nothing is being written; raises what the last write has raised."""
        running, self._running = self._running, None
        if running is not None:
            try:
                running.result()
            except BaseException:
                # A signal interrupted this wait: what is being written is still to be waited for
                self._running = None if running.done() else running
                raise

    def close(self) -> None:
        """Wait, and end the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()


def on_host(value: Any) -> Any:
    """Copies of all tensors in nested dicts, lists and tuples in the host's memory, where no step will change them."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        copied = type(value)((key, on_host(one)) for key, one in value.items())
        if hasattr(value, "_metadata"):  # of a module's state: versions of its layers
            copied._metadata = value._metadata
        return copied
    if isinstance(value, (list, tuple)):
        return type(value)(map(on_host, value))
    return value
