"""What users' decoders read through."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any


class MemoryContext(ABC):
    """The memory of an epoch."""

    @property
    @abstractmethod
    def state(self) -> Any:
        """What the function that compile_reader() gives needs to know (`storage_state`)."""
        raise NotImplementedError

    def start_batch(self, batch: int) -> None:  # noqa: B027  all of it is there
        """Nothing."""

    def __enter__(self) -> MemoryContext:
        return self

    def __exit__(self, *_) -> None:
        return None


class MemoryManager(ABC):
    """How the bytes of a file come into memory."""

    def __init__(self, reader: Any):
        self.reader = reader

    @abstractmethod
    def schedule_epoch(self, schedule: Sequence) -> MemoryContext:
        """The memory of an epoch with these batches."""
        raise NotImplementedError

    @abstractmethod
    def compile_reader(self) -> Callable:
        """A function (address, storage_state) -> the bytes (uint8) that lie there, for compiled code."""
        raise NotImplementedError
