"""The generators of Python, NumPy and torch for transforms of other libraries that run in threads.

They draw from generators of the whole process: which thread gets which number would depend on chance, and the user's
own draws would be disturbed. Within `drawing(key)` the functions of the modules `random` and `numpy.random` (as
these are looked up in their modules) and torch's functions that draw mean generators of this thread, which begin
with the key. Elsewhere they are what they were.
"""

from __future__ import annotations

import contextlib
import functools
import random
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

_of_thread = threading.local()
_lock = threading.Lock()
_METHODS = ("uniform_", "normal_", "random_", "bernoulli_", "exponential_", "geometric_", "log_normal_", "cauchy_")
_FUNCTIONS = ("rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson")
_LIKE = {"rand_like": "rand", "randn_like": "randn"}  # these take no generator


class _Own:
    """The generators of a thread."""

    def __init__(self):
        self.python, self.numpy, self.torch = random.Random(), np.random.RandomState(), torch.Generator()

    def begin(self, key: int) -> None:
        self.python.seed(key)
        self.numpy.seed([key & 0xFFFFFFFF, key >> 32])
        self.torch.manual_seed(key)


@functools.cache
def _drawing_functions() -> tuple[set, dict]:
    found = {getattr(torch, name) for name in _FUNCTIONS} | {getattr(torch.Tensor, name) for name in _METHODS}
    found |= {torch.Tensor.bernoulli, torch.Tensor.multinomial}
    return found, {getattr(torch, name): getattr(torch, plain) for name, plain in _LIKE.items()}


class _TorchDraws(TorchFunctionMode):
    """Gives torch's functions that draw this thread's generator."""

    def __init__(self, generator: torch.Generator):
        super().__init__()
        self._generator = generator

    def __torch_function__(self, function, types, arguments=(), named=None):
        named = named or {}
        drawing, like = _drawing_functions()
        if function in drawing and named.get("generator") is None:
            named = {**named, "generator": self._generator}
        elif function in like:
            shown, *_ = arguments
            named = {"dtype": shown.dtype, "device": shown.device, **named, "generator": self._generator}
            named.pop("memory_format", None)
            return like[function](shown.shape, **named)
        return function(*arguments, **named)


def _dispatching(original: Any, name: str, which: str) -> Any:
    @functools.wraps(original)
    def draw(*arguments, **named):
        own = getattr(_of_thread, "active", None)
        found = original if own is None else getattr(getattr(own, which), name)
        return found(*arguments, **named)

    draw.belongs_to_beton = True
    return draw


def _known_to_numba() -> Any:
    """A function that has numba compile a call of the second function as one of the first."""
    from numba.core.registry import cpu_target

    context = cpu_target.typing_context
    for part in (cpu_target.target_context, context):  # it takes the functions for what they are when this is called
        part.refresh()

    def known(original: Any, other: Any) -> None:
        try:
            context.insert_global(other, context.resolve_value_type(original))
        except (ValueError, TypeError):  # one that numba does not compile
            return

    return known


def install() -> None:
    """Make the functions of `random` and `numpy.random` those of the thread where it is within drawing(); once."""
    with _lock:
        if hasattr(random.random, "belongs_to_beton"):
            return
        known = _known_to_numba()
        for module, hidden, which in ((random, random._inst, "python"), (np.random, np.random.mtrand._rand, "numpy")):
            for name in dir(module):
                function = getattr(module, name)
                if getattr(function, "__self__", None) is hidden:
                    setattr(module, name, _dispatching(function, name, which))
                    known(function, getattr(module, name))
        fresh = np.random.default_rng

        @functools.wraps(fresh)
        def default_rng(seed=None):
            own = getattr(_of_thread, "active", None)
            return fresh(own.numpy.randint(0, 2**32, 4, np.uint64) if seed is None and own else seed)

        np.random.default_rng = default_rng


def install_in(function: Any) -> None:
    """The same for names that the module of a function has of them by `from numpy.random import rand` and the like."""
    install()
    namespace = getattr(function, "__globals__", {})
    for module, hidden in ((random, random._inst), (np.random, np.random.mtrand._rand)):
        for name, value in list(namespace.items()):
            if getattr(value, "__self__", None) is hidden:
                namespace[name] = getattr(module, value.__name__)


@contextlib.contextmanager
def drawing() -> Iterator[Any]:
    """Within it, the function that it gives (of a key, from 0 to 2**64 - 1) begins this thread's generators anew."""
    if not hasattr(_of_thread, "own"):
        _of_thread.own = _Own()
    own = _of_thread.own
    before, _of_thread.active = getattr(_of_thread, "active", None), own
    try:
        with _TorchDraws(own.torch):
            yield own.begin
    finally:
        _of_thread.active = before


@contextlib.contextmanager
def drawing_on(device: torch.device, key: int) -> Iterator[None]:
    """The same for one key, and with torch's own generators of the CPU and of a GPU, which are left as they were:
    for what draws in C++ or on the device, in a thread that is the only one to draw from them."""
    devices = [device] if device.type == "cuda" else []
    if not hasattr(_of_thread, "own"):
        _of_thread.own = _Own()
    before, _of_thread.active = getattr(_of_thread, "active", None), _of_thread.own
    try:
        with torch.random.fork_rng(devices):
            torch.random.default_generator.manual_seed(key >> 1)
            if devices:
                torch.cuda.manual_seed(key >> 1)
            _of_thread.own.begin(key)
            yield
    finally:
        _of_thread.active = before
