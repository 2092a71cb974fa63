"""Other labels for some samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from beton.ffcv.pipeline.operation import Operation
from beton.ffcv.pipeline.state import State
from beton.ffcv.transforms._drawn import ready
from beton.kernels.jit import jit


@jit
def _replace(labels, indices, chosen, label):
    for n in range(len(labels)):
        place = np.searchsorted(chosen, indices[n])
        if place < len(chosen) and chosen[place] == indices[n]:
            labels[n] = label
    return labels


class ReplaceLabel(Operation):
    """Give the samples `indices` the label `new_label`."""

    def __init__(self, indices: Sequence[int], new_label: int):
        super().__init__()
        self.indices, self.new_label = np.sort(indices), new_label

    def generate_code(self) -> Callable:
        """f(batch, memory, indices)."""
        chosen, label = self.indices, self.new_label

        def replace_label(labels, _, indices):
            return _replace(labels, indices, chosen, label)

        replace_label.with_indices = True
        return ready(replace_label)

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        """As before, in the same memory."""
        return replace(previous_state, jit_mode=True), None
