"""Squeeze."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from beton.ffcv.pipeline.operation import Operation
from beton.ffcv.pipeline.state import State
from beton.ffcv.transforms._drawn import ready


class Squeeze(Operation):
    """Leave out dimensions of size 1: those given in `dims` (the batch's is 0), or all but the batch's."""

    def __init__(self, *dims: int):
        super().__init__()
        self.dims = dims

    def generate_code(self) -> Callable:
        """A view of the same numbers."""
        dims = self.dims

        def squeeze(batch, _):
            of = {dim % batch.ndim for dim in dims} if dims else range(1, batch.ndim)
            return batch.reshape([n for dim, n in enumerate(batch.shape) if not (dim in of and n == 1)])

        return ready(squeeze)

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        """Without these dimensions; run as plain Python, as it is only a view."""
        shape = previous_state.shape
        if shape is not None:
            of = {dim % (len(shape) + 1) - 1 for dim in self.dims} if self.dims else range(len(shape))
            shape = tuple(n for dim, n in enumerate(shape) if not (dim in of and n == 1))
        return replace(previous_state, jit_mode=False, shape=shape), None
