"""A run of operations that are no part of the fused pass: compiled or plain Python, one after the other on a batch."""

from __future__ import annotations

import contextlib
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numba
import numpy as np
import torch
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaError

from beton.errors import UserError
from beton.ffcv.memory import Memory
from beton.ffcv.pipeline import caching
from beton.ffcv.pipeline.compiler import Compiler
from beton.ffcv.pipeline.operation import Operation
from beton.ffcv.pipeline.state import State, WrongState
from beton.ffcv.transforms.module import ModuleWrapper
from beton.ffcv.transforms.ops import as_tensor, numpy_dtype, torch_dtype
from beton.kernels.jit import jit
from beton.rng import bits, sample_keys
from beton.stages.randomness import drawing, drawing_on, install_in

FIRST_STATE = State(jit_mode=True, device=torch.device("cpu"), shape=None, dtype=np.dtype("u1"))

_SET_APART = 3 << 60  # from the keys of samples
_MOST_NAMED = 8
# Held while a function runs in numba's own threads (two at a time end the process), or draws on a GPU
_alone = threading.Lock()


@jit
def _seed_compiled(seed):
    np.random.seed(seed)


@dataclass(frozen=True)
class Source:
    """What the decoder of a field of the file `dataset` reads from; for operations behind it `memory_read` and
    `storage_state` are not needed."""

    field: Any = None
    metadata: np.ndarray | None = None
    memory_read: Callable | None = None
    storage_state: Any = None
    dataset: str = ""


@dataclass
class _Step:
    """An operation that was planned. `how`: 'kernel', 'compiled' or 'plain'. `through_array`: it is compiled, and is
    given a tensor of the CPU as an array."""

    operation: Operation
    before: State
    after: State
    memory: Memory
    code: Callable
    how: str
    decodes: bool
    through_array: bool
    takes_indices: bool
    takes_counter: bool
    alone: bool

    @property
    def name(self) -> str:
        return name_of(self.operation)


def name_of(operation: Any) -> str:
    """What messages call an operation."""
    wrapped = operation.module if isinstance(operation, ModuleWrapper) else operation
    return type(wrapped).__name__


class Segment:
    """`operations` of the pipeline `name` (the first is a decoder, if `decodes`) for batches of up to `batch_size`.

    `state`: before them; afterwards the state behind them. Operations' attributes are read, and their code made, when
    it is constructed: once an epoch. What they draw depends on (seed, epoch, batch, its first sample), `name` and their
    place. `pinned`: their arrays are in page-locked memory. run() may be called from several threads at a time.

    Raises UserError, or what an operation raises, with its name and the pipeline's.
    """

    def __init__(
        self,
        name: str,
        operations: Sequence[Operation | torch.nn.Module],
        state: State,
        batch_size: int,
        *,
        source: Source | None = None,
        decodes: bool = False,
        seed: int = 0,
        first: int = 0,
        pinned: bool = False,
    ):
        """`first`: the place of the first operation in the pipeline."""
        self.name, self._batch_size, self._pinned = name, batch_size, pinned
        self._seed, self._first = seed & ((1 << 63) - 1), first
        self._source = source or Source()
        self._begins_with = state
        self._steps: list[_Step] = []
        for place, operation in enumerate(operations):
            self._steps.append(self._planned(operation, state, decodes and place == 0))
            state = self._steps[-1].after
        self.state = state
        for step in self._steps:
            if step.how == "plain":
                install_in(step.code)

    @property
    def parts(self) -> list[tuple[str, str]]:
        """Name of each operation and how it runs: 'kernel' (compiled with the package), 'compiled', 'plain'."""
        return [(step.name, step.how) for step in self._steps]

    # Planning

    def _planned(self, operation: Any, state: State, decodes: bool) -> _Step:
        if isinstance(operation, torch.nn.Module):
            operation = ModuleWrapper(operation)
        if not isinstance(operation, Operation):
            what = f"{operation!r} in the pipeline '{self.name}' is no Operation and no torch.nn.Module"
            raise UserError(what, "make a class of it that is made from beton.ffcv.pipeline.operation.Operation")
        with self._naming(operation):
            operation.accept_field(self._source.field)
            operation.accept_globals(self._source.metadata, self._source.memory_read)
            after, wanted, through_array = _declared(operation, state)
            if operation.declare_shared_memory(state) is not None:
                what = f"{name_of(operation)} of the pipeline '{self.name}' asks for memory that pipelines share"
                raise UserError(what, "let it draw from its indices, as ImageMixup and LabelMixup do")
            code = operation.generate_code()
            takes = [bool(getattr(code, name, False)) for name in ("with_indices", "with_counter")]
            is_ready = getattr(code, "is_ready", False)
            how = "kernel" if is_ready else "plain"
            alone = how != "kernel" and caching.calls_parallel(code)
            if after.jit_mode and not is_ready and Compiler.is_enabled:
                code, how = _compiled(code, operation), "compiled"
            memory = Memory(wanted, self._batch_size, after.jit_mode, self._pinned)
        if through_array:
            after = replace(after, jit_mode=False, dtype=torch_dtype(after.dtype))
        return _Step(operation, state, after, memory, code, how, decodes, through_array, *takes, alone)

    def compile(self) -> None:
        """Compile what is not compiled yet, for the types that the states say; else run() does it.

        Raises UserError for an operation that numba cannot compile.
        """
        known = None if self._steps and self._steps[0].decodes else _type_of(self._begins_with)
        for step in self._steps:
            if step.how == "kernel":
                known = _type_of(step.after)
                continue
            if not isinstance(step.code, Dispatcher) or step.through_array or not (known or step.decodes):
                return
            with self._naming(step.operation):
                memory = [_type_of(query) for query in step.memory.wanted]
                given = [numba.types.none if not memory else memory[0] if step.memory.is_one else _tuple(memory)]
                indices = numba.types.Array(numba.int64, 1, "C")
                if step.decodes:
                    about = self._source.metadata, self._source.storage_state
                    given = [indices, *given, *map(numba.typeof, about)]
                else:
                    given = [known, *given]
                given += [indices] * step.takes_indices + [numba.int64] * step.takes_counter
                step.code.compile(tuple(given))
                known = step.code.overloads[tuple(given)].signature.return_type

    # Running

    def run(self, batch: Any, indices: np.ndarray, epoch: int, number: int) -> Any:
        """What the operations make of a batch (array or tensor; a decoder needs none) of the samples `indices` (int64),
        the `number`-th of an epoch: an array or a tensor, whose memory is not used again while it is held."""
        indices = np.ascontiguousarray(indices, np.int64)
        # With its first sample, so that processes that share an epoch do not draw the same
        key = sample_keys(self._seed ^ _SET_APART, epoch, indices[:1])[0]
        for part in (number, zlib.crc32(self.name.encode())):
            key = np.uint64(bits(key, 0, part))
        for place, step in enumerate(self._steps, self._first):
            with self._naming(step.operation, number, epoch, indices):
                batch = self._called(step, batch, indices, number, int(bits(key, 0, place)))
        return batch

    def _called(self, step: _Step, batch: Any, indices: np.ndarray, number: int, key: int) -> Any:
        if step.through_array or (step.how == "compiled" and isinstance(batch, torch.Tensor)):
            batch = batch.numpy()
        arguments = [batch, step.memory.lend(len(indices))]
        if step.decodes:
            arguments = [indices, arguments[1], self._source.metadata, self._source.storage_state]
        if step.takes_indices:
            arguments.append(indices)
        if step.takes_counter:
            arguments.append(number)
        with contextlib.ExitStack() as within:
            if step.how == "plain":
                within.enter_context(_drawing(torch.device(step.before.device), key))
            if step.alone:
                within.enter_context(_alone)
            _seed_compiled(np.uint32(key & 0xFFFFFFFF))
            made = step.code(*arguments)
        return as_tensor(made) if step.through_array else made

    @contextlib.contextmanager
    def _naming(self, operation: Any, batch: int | None = None, epoch: int = 0, indices: Any = ()) -> Iterator[None]:
        """Exceptions within it name the operation and the pipeline."""
        where = f"{name_of(operation)} of the pipeline '{self.name}'"
        try:
            yield
        except WrongState as error:
            raise WrongState(f"{where}: {error.what}", error.to_do) from None
        except UserError:
            raise
        except NumbaError as error:
            what = f"numba cannot compile {where}: {_reason(error)}"
            to_do = "use what numba knows, or have it run as plain Python: jit_mode=False in the state that it declares"
            raise UserError(what, to_do) from error
        except Exception as error:
            if batch is not None:
                shown = ", ".join(map(str, indices[:_MOST_NAMED])) + ", ..." * (len(indices) > _MOST_NAMED)
                where += f", in batch {batch} of epoch {epoch}, samples {shown} of {self._source.dataset}"
            named = _named(error, f"in the operation {where}")
            if named is error:
                raise
            # contextlib gives back a StopIteration that is the cause
            raise named from None if isinstance(error, StopIteration) else error


def _declared(operation: Operation, state: State) -> tuple[State, Any, bool]:
    """The state behind an operation and its memory; and whether it changes a tensor of the CPU as an array."""
    try:
        return *operation.declare_state_and_memory(state), False
    except WrongState:
        if not isinstance(state.dtype, torch.dtype) or torch.device(state.device).type != "cpu":
            raise
    return *operation.declare_state_and_memory(replace(state, dtype=numpy_dtype(state.dtype))), True


def _compiled(code: Callable, operation: Operation) -> Callable:
    return Compiler.compile(code) if caching.digest(code) else caching.compiled_for(operation, code)


def _type_of(about: Any) -> Any:
    """Numba's type of a batch in a state, or of memory; None where that is not known."""
    if about.shape is None or isinstance(about.dtype, torch.dtype):
        return None
    return numba.types.Array(numba.from_dtype(np.dtype(about.dtype)), len(about.shape) + 1, "C")


def _tuple(members: list) -> Any:
    return numba.types.BaseTuple.from_types(members)


@contextlib.contextmanager
def _drawing(device: torch.device, key: int) -> Iterator[None]:
    """Within it, what plain Python draws comes from this key."""
    if device.type == "cpu":
        with drawing() as begin:
            begin(key)
            yield
    else:
        with _alone, drawing_on(device, key):
            yield


def _reason(error: NumbaError) -> str:
    """The line of numba's message that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines()]
    shown = [line for line in lines if line and not line.startswith(("Failed in", "- Resolution", "During:", "File"))]
    return shown[0].rstrip(".:") if shown else type(error).__name__


def _named(error: Exception, where: str) -> Exception:
    """The same exception with a text that says where it was raised: of a class made from its own. For one that cannot
    be made so, itself, with a note."""
    kind, text = type(error), f"{str(error) or type(error).__name__} ({where})"
    if kind is StopIteration:  # it would end the loader's own generators
        return RuntimeError(f"StopIteration: {text}")
    about = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__str__": lambda _: text}
    about["__reduce__"] = lambda _: (_named, (error, where))  # it may travel between processes
    try:
        told = type(kind.__name__, (kind,), about)
        made = told.__new__(told, *error.args)
    except TypeError:
        if hasattr(error, "add_note"):
            error.add_note(where)
        return error
    made.args = error.args
    vars(made).update(vars(error))
    return made
