"""The file mapped into memory: the system reads what is asked for, and keeps what there is room for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from beton.ffcv.memory_managers.base import MemoryContext, MemoryManager
from beton.ffcv.pipeline.compiler import Compiler


def _read(address, state):
    file, addresses, sizes = state
    at = np.searchsorted(addresses, address)
    if at >= len(addresses) or addresses[at] != address:
        raise ValueError("nothing is stored at this address")
    return file[address : address + sizes[at]]


class OSCacheContext(MemoryContext):
    """The same memory in every epoch."""

    def __init__(self, manager: OSCacheManager):
        self.manager = manager

    @property
    def state(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The bytes of the file (uint8), and addresses and sizes (uint64) of what is stored, in their order."""
        return self.manager.storage_state


class OSCacheManager(MemoryManager):
    """The file of `reader`, mapped: its bytes (uint8) are `mapped` where it is already."""

    def __init__(self, reader: Any, mapped: np.ndarray | None = None):
        super().__init__(reader)
        self._bytes = mapped

    @cached_property
    def storage_state(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See OSCacheContext."""
        table = self.reader.alloc_table
        table = table[np.argsort(table["ptr"], kind="stable")]
        if self._bytes is None:
            with self.reader.open() as file:
                self._map = file.map()
            self._bytes = self._map.bytes
        return self._bytes, np.ascontiguousarray(table["ptr"]), np.ascontiguousarray(table["size"])

    def schedule_epoch(self, schedule: Sequence = ()) -> OSCacheContext:
        """The memory, whatever the batches."""
        return OSCacheContext(self)

    def compile_reader(self) -> Callable[[int, Any], np.ndarray]:
        """See MemoryManager. The function raises ValueError for an address where nothing begins."""
        return Compiler.compile(_read)
