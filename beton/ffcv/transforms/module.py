"""Modules of torch and torchvision."""

from __future__ import annotations

from collections.abc import Callable

import torch

from beton.ffcv.pipeline.operation import Operation
from beton.ffcv.pipeline.state import State


class ModuleWrapper(Operation):
    """Calls a torch.nn.Module with the batch, a tensor: what is random in it is drawn once for all of the batch."""

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.module = module

    def generate_code(self) -> Callable:
        """f(batch, memory)."""
        module = self.module

        def apply_module(batch, _):
            return module(batch)

        return apply_module

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        """As before, for what the module makes of it cannot be known."""
        return previous_state, None
