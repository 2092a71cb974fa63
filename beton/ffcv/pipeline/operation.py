"""An operation of a pipeline: the base class of FFCV's and of users' own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from beton.ffcv.pipeline.allocation_query import Allocation, AllocationQuery
from beton.ffcv.pipeline.state import State

__all__ = ["AllocationQuery", "Operation", "State"]


class Operation(ABC):
    """One step of a field's pipeline; a decoder is one too, the first.

    Before the other methods are called, `field` is the Field, `metadata` the records of all its samples, and
    `memory_read` a function (address, storage_state) -> the bytes (uint8) that lie there.
    """

    def __init__(self):
        self.metadata: np.ndarray | None = None
        self.memory_read: Callable | None = None

    def accept_field(self, field: Any) -> None:
        """Take the field of the pipeline."""
        self.field = field

    def accept_globals(self, metadata: np.ndarray, memory_read: Callable) -> None:
        """Take what a decoder reads from."""
        self.metadata, self.memory_read = metadata, memory_read

    @abstractmethod
    def generate_code(self) -> Callable:
        """The function f(batch, memory) -> batch; of a decoder f(indices, memory, metadata, storage_state) -> batch.

        With an attribute `with_indices` it is given the numbers of the samples (int64) too. `memory` is what
        declare_state_and_memory() has asked for: None, an array, or a tuple of them. Numba compiles it where the state
        behind it says jit_mode.
        """
        raise NotImplementedError

    @abstractmethod
    def declare_state_and_memory(self, previous_state: State) -> tuple[State, Allocation | None]:
        """The state behind the operation, and the memory that it needs."""
        raise NotImplementedError

    def declare_shared_memory(self, previous_state: State) -> Allocation | None:
        """Memory that several pipelines share: an operation that asks for some is refused."""
        return None

    def generate_code_for_shared_state(self) -> Callable | None:
        """What fills that memory."""
        return None
