"""Operations that draw a few numbers for each sample: what they have in common.

Their loops are compiled with the package, so nothing is left to compile when a loader is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from beton.ffcv.pipeline.operation import Operation
from beton.kernels.jit import jit


@jit
def uniforms(count, kinds):
    """Numbers from 0 to 1 (float64, count x kinds) from numba's generator of this thread."""
    drawn = np.empty((count, kinds))
    for n in range(count):
        for k in range(kinds):
            drawn[n, k] = np.random.random()
    return drawn


@jit
def seeded(seed, count, kinds):
    """The same from the generator as it is after this seed."""
    np.random.seed(seed)
    return uniforms(count, kinds)


def ready(code: Callable) -> Callable:
    """Mark the function of an operation that has nothing to compile, so that it is called as it is."""
    code.is_ready = True
    return code


class Drawn(Operation):
    """Calls `kernel`(batch, memory, drawn, parameters()), a compiled function; `drawn` is float64, samples x `kinds`.

    `seed`: the numbers are those of this seed and of the batch's place in the epoch, so that operations with the same
    seed draw the same; without, they come from the loader's.
    """

    kernel: ClassVar[Callable]
    kinds: ClassVar[int] = 1
    seed: int | None = None

    def parameters(self) -> tuple[Any, ...]:
        """What the kernel needs to know."""
        raise NotImplementedError

    def generate_code(self) -> Callable:
        """f(batch, memory), or with a seed f(batch, memory, counter)."""
        kernel, kinds, parameters, seed = type(self).kernel, self.kinds, self.parameters(), self.seed

        def code(batch, memory):
            return kernel(batch, memory, uniforms(len(batch), kinds), parameters)

        def code_of_seed(batch, memory, counter):
            return kernel(batch, memory, seeded(seed + counter, len(batch), kinds), parameters)

        code_of_seed.with_counter = True
        return ready(code if seed is None else code_of_seed)
