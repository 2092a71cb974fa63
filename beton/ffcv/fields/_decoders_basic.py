"""Decoders of numbers, arrays and bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from beton.ffcv.fields._decoders_image import plain
from beton.ffcv.pipeline.allocation_query import AllocationQuery
from beton.ffcv.pipeline.operation import Operation
from beton.ffcv.pipeline.state import State


class BasicDecoder(Operation):
    """Numbers, one a sample (N x 1), of the class's `dtype`."""

    dtype: np.dtype

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        """One number."""
        state = replace(previous_state, jit_mode=True, shape=(1,), dtype=self.dtype)
        return state, AllocationQuery((1,), self.dtype)

    def generate_code(self) -> Callable:
        """f(indices, memory, metadata, storage_state)."""

        def decoder(indices, target, metadata, storage_state):
            target[: len(indices), 0] = metadata[indices]
            return target[: len(indices)]

        return plain(decoder)


class IntDecoder(BasicDecoder):
    """Whole numbers (int64, N x 1)."""

    dtype = np.dtype("<i8")


class FloatDecoder(BasicDecoder):
    """Numbers (float64, N x 1)."""

    dtype = np.dtype("<f8")


class NDArrayDecoder(Operation):
    """Arrays of the shape and dtype of the field (an NDArrayField or one made from it)."""

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        """As the field says."""
        shape, dtype = tuple(map(int, self.field.shape)), np.dtype(self.field.dtype)
        return replace(previous_state, jit_mode=True, shape=shape, dtype=dtype), AllocationQuery(shape, dtype)

    def generate_code(self) -> Callable:
        """f(indices, memory, metadata, storage_state)."""
        read = self.memory_read

        def decoder(indices, target, metadata, storage_state):
            rows = target.view(np.uint8).reshape(len(target), -1)
            for row, sample in zip(rows, indices, strict=False):
                row[:] = read(metadata[sample], storage_state)
            return target[: len(indices)]

        return plain(decoder)


class BytesDecoder(Operation):
    """Bytes (uint8, N x the most that a sample has), with zeros behind those of a shorter one."""

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        """As many as the longest sample has."""
        shape, dtype = (int(self.metadata["size"].max()),), np.dtype("<u1")
        return replace(previous_state, jit_mode=True, shape=shape, dtype=dtype), AllocationQuery(shape, dtype)

    def generate_code(self) -> Callable:
        """f(indices, memory, metadata, storage_state)."""
        read = self.memory_read

        def decoder(indices, target, metadata, storage_state):
            target[: len(indices)] = 0
            for row, sample in zip(target, indices, strict=False):
                size = int(metadata[sample]["size"])
                if size:
                    row[:size] = read(metadata[sample]["ptr"], storage_state)[:size]
            return target[: len(indices)]

        return plain(decoder)
