"""What numba has made of users' functions, kept in memory and on disk.

numba's own disk cache misses a change in a function that the compiled one calls, and never finds again a function that
was made within another and has a compiled one in its closure. Here a digest of all that goes into a function is its
name: its code, what its closure holds, the globals that it names, and the same of each function among these. Where
something is of a kind whose value cannot be told (a class's instance, a C pointer), nothing is kept.
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from numba.core import caching
from numba.core.dispatcher import Dispatcher

from beton.kernels import jit

_SIMPLE = (type(None), bool, int, float, complex, str, bytes, range, slice, type(Ellipsis), np.dtype, torch.dtype)
# Packages whose functions numba knows by name: not to be looked into
_KNOWN = {"builtins", "cmath", "math", "numba", "numpy", "operator", "random", "torch"}

_lock = threading.Lock()
_in_memory: dict[tuple, Dispatcher] = {}
_of_owner: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


class _Unknown(Exception):
    """The value cannot be told."""


def digest(function: Callable) -> str | None:
    """A name (hexadecimal) for a function and all that it depends on; None where that cannot be told."""
    told, seen = hashlib.sha256(), set()
    try:
        _tell(function, told.update, seen)
    except (_Unknown, RecursionError, ValueError):  # an empty cell is a ValueError
        return None
    return told.hexdigest()


def compiled(function: Callable, signature: Any = None) -> Dispatcher:
    """The function compiled by numba, anew only where nothing equal to it has been compiled before.

    `signature`: the only types for which it shall be compiled, at once (numba's notation).
    """
    name = digest(function)
    key = (name, str(signature))
    with _lock:
        if name is not None and key in _in_memory:
            return _in_memory[key]
        made = numba.njit(fastmath=True, nogil=True, error_model="numpy")(function)
        if name is not None:
            made._cache = _Cache(function, name)
            _in_memory[key] = made
    if signature is not None:
        made.compile(signature)
        made.disable_compile()
    return made


def compiled_for(owner: Any, function: Callable) -> Dispatcher:
    """The same for a function whose digest cannot be told: kept as long as the operation that has made it."""
    try:
        kept = _of_owner.get(owner)
    except TypeError:  # the operation cannot be a key
        return compiled(function)
    if kept is None or kept.py_func.__code__ is not function.__code__:
        kept = _of_owner[owner] = compiled(function)
    return kept


def calls_parallel(function: Callable) -> bool:
    """Whether the function is one that numba runs in its own threads, or names such a one."""
    return any(found.targetoptions.get("parallel") for found in _dispatchers(function, set()))


def _dispatchers(function: Any, seen: set) -> Iterator[Dispatcher]:
    if isinstance(function, Dispatcher):
        yield function
        function = function.py_func
    if not isinstance(function, types.FunctionType) or id(function) in seen:
        return
    seen.add(id(function))
    cells = [cell.cell_contents for cell in function.__closure__ or () if not _is_empty(cell)]
    for value in [*cells, *_globals(function)]:
        yield from _dispatchers(value, seen)


def _is_empty(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _globals(function: types.FunctionType) -> Iterator[Any]:
    """The values of the globals that a function names, and of the attributes of modules that it may mean."""
    names = {name for code in _codes(function.__code__) for name in code.co_names}
    for name in sorted(names & function.__globals__.keys()):
        value = function.__globals__[name]
        yield value
        if isinstance(value, types.ModuleType) and value.__name__.split(".")[0] not in _KNOWN:
            yield from (getattr(value, other) for other in sorted(names) if hasattr(value, other))


def _tell(value: Any, tell: Callable[[bytes], None], seen: set) -> None:
    """Tell a digest what a value is. Raises _Unknown."""
    tell(f"<{type(value).__name__}>".encode())
    if isinstance(value, Dispatcher):
        tell(repr(sorted(value.targetoptions.items(), key=str)).encode())
        value = value.py_func
    if hasattr(value, "belongs_to_beton"):  # a drawing function of NumPy's or Python's (beton/stages/randomness.py)
        tell(value.__name__.encode())
        return
    if isinstance(value, types.FunctionType):
        if id(value) in seen:
            return
        seen.add(id(value))
        for code in _codes(value.__code__):
            constants = [c for c in code.co_consts if not isinstance(c, types.CodeType)]
            about = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, code.co_flags, constants)
            tell(code.co_code + repr(about).encode())
        defaults = [value.__defaults__, value.__kwdefaults__]
        parts = [*defaults, *(cell.cell_contents for cell in value.__closure__ or ()), *_globals(value)]
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        tell(f"{value.shape} {value.dtype.descr} {value.strides}".encode() + value.tobytes())
        parts = []
    elif isinstance(value, (list, tuple)):
        parts = [len(value), *value]
    elif isinstance(value, dict):
        parts = [part for pair in value.items() for part in pair]
    elif isinstance(value, (types.ModuleType, type, types.BuiltinFunctionType, np.ufunc)):
        tell(f"{getattr(value, '__module__', '')}.{value.__name__}".encode())
        parts = []
    elif isinstance(value, (*_SIMPLE, np.generic, numba.types.Type)):
        tell(repr(value).encode())
        parts = []
    elif isinstance(value, types.MethodType) and type(value.__self__).__module__.split(".")[0] in _KNOWN:
        tell(value.__qualname__.encode())
        parts = []
    else:
        raise _Unknown
    for part in parts:
        _tell(part, tell, seen)


@dataclasses.dataclass
class _Locator:
    """Where numba's cache keeps it; what it asks for is of its own making."""

    folder: str
    stamp: str
    _py_file: str

    def get_cache_path(self) -> str:
        return self.folder

    def get_source_stamp(self) -> str:
        return self.stamp

    def ensure_cache_path(self) -> None:
        Path(self.folder).mkdir(parents=True, exist_ok=True)


class _Results(caching.CompileResultCacheImpl):
    """As numba's, but found by the digest."""

    def __init__(self, function: Callable, name: str):
        code = function.__code__
        self._lineno = code.co_firstlineno
        self._locator = _Locator(f"{jit.folder()}/operations", name, code.co_filename)
        self._filename_base = f"{code.co_name}-{name[:32]}".replace("<", "").replace(">", "")

    def check_cachable(self, data: Any) -> bool:
        """Whether numba can keep it; said to nobody, since it is compiled again then."""
        return not (any(not lifted.can_cache for lifted in data.lifted) or data.library.has_dynamic_globals)


class _Cache(caching.FunctionCache):
    """Numba's disk cache for one function; where it cannot be read or written, the function is compiled."""

    def __init__(self, function: Callable, name: str):
        self._name, self._digest, self._py_func = repr(function), name, function
        self._impl = _Results(function, name)
        self._cache_path = self._impl.locator.get_cache_path()
        self._cache_file = caching.IndexDataCacheFile(self._cache_path, self._impl.filename_base, name)
        self.enable()

    def _index_key(self, sig: Any, codegen: Any) -> tuple:
        return sig, codegen.magic_tuple(), self._digest

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What was kept for these types, or None."""
        try:
            return super().load_overload(sig, target_context)
        except OSError:
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled for these types, if there is a place and numba has its code at hand."""
        try:
            super().save_overload(sig, data)
        except (OSError, RuntimeError):  # numba may have dropped the object code of a function that another one calls
            return
