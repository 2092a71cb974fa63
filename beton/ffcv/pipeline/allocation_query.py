"""What memory an operation asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class AllocationQuery:
    """Memory for a batch: rows of `shape` and `dtype`, a NumPy array or, for a torch dtype, a tensor on `device`."""

    shape: tuple[int, ...]
    dtype: Any
    device: torch.device | None = None


Allocation = AllocationQuery | Sequence[AllocationQuery]
