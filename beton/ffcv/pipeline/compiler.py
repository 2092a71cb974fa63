"""FFCV's compiler, which users' operations call: numba, with what it has compiled kept in memory and on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from numba.core.dispatcher import Dispatcher

from beton import system
from beton.ffcv.pipeline import caching


class Compiler:
    """How operations are compiled, for the whole process.

    A batch's operations run in one thread, and several batches side by side: so that random draws do not depend on the
    number of threads, and because numba's threads may not be entered twice (its layer 'workqueue' ends the process).
    """

    is_enabled: ClassVar[bool] = True
    num_threads: ClassVar[int] = 1

    @classmethod
    def set_enabled(cls, b: bool) -> None:
        """Whether operations are compiled; without, they run as the Python that they are."""
        cls.is_enabled = bool(b)

    @classmethod
    def set_num_threads(cls, n: int) -> None:
        """Kept in `num_threads` (below 1: all cores); numba's and torch's own threads are left alone."""
        cls.num_threads = n if n >= 1 else system.cores()

    @classmethod
    def compile(cls, code: Callable, signature: Any = None) -> Callable:
        """`code` compiled as FFCV does it: without the GIL, with fast arithmetic, 1 / 0 as NumPy has it.

        What is compiled already, or marked `is_plain` (decoders that call our kernels), is given back as it is.
        """
        if not cls.is_enabled or isinstance(code, Dispatcher) or getattr(code, "is_plain", False):
            return code
        return caching.compiled(code, signature)

    @classmethod
    def get_iterator(cls) -> type[range]:
        """What operations loop over the samples of a batch with."""
        return range
