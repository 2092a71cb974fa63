"""FFCV's Loader on this library's engine."""

from __future__ import annotations

import enum
import inspect
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from beton import system
from beton.errors import UserError
from beton.ffcv.engine import Engine
from beton.ffcv.explained import explain
from beton.ffcv.fields.base import Field
from beton.ffcv.loader.epoch_iterator import EpochIterator
from beton.ffcv.memory_managers import OSCacheManager, ProcessCacheManager
from beton.ffcv.pipeline import Compiler, Operation, PipelineSpec
from beton.ffcv.plan import DECODERS, Context, Planned, Wanted, plan
from beton.ffcv.reader import Reader
from beton.ffcv.traversal_order import QuasiRandom, Random, Sequential
from beton.ffcv.traversal_order.base import TraversalOrder
from beton.format.mapped import MappedFile


class OrderOption(enum.Enum):
    """Orders that a loader knows by name."""

    SEQUENTIAL = 1
    RANDOM = 2
    QUASI_RANDOM = 3


ORDER_TYPE = TraversalOrder | Literal[OrderOption.SEQUENTIAL, OrderOption.RANDOM, OrderOption.QUASI_RANDOM]
ORDER_MAP = {
    OrderOption.RANDOM: Random,
    OrderOption.SEQUENTIAL: Sequential,
    OrderOption.QUASI_RANDOM: QuasiRandom,
}
DEFAULT_PROCESS_CACHE = int(os.environ.get("FFCV_DEFAULT_CACHE_PROCESS", "0"))
DEFAULT_OS_CACHE = not DEFAULT_PROCESS_CACHE


class Loader:
    """Batches of the file `fname` (or `path`), as tuples: each `for` is the next epoch (`next_epoch` may be set).

    `pipelines`: for each field a list of its decoder and operations (torch.nn.Modules too), or a PipelineSpec; a field
    without one has its decoder and ToTensor, one with None is left out. A name that is no field's is a further column,
    if its PipelineSpec, or `custom_field_mapper` (FFCV-SSL's), says of which field.

    `order`: an OrderOption, or a class made from TraversalOrder, constructed with the loader and `order_kwargs`.
    `seed`: order and augmentations depend on it, the epoch and the sample alone (default: drawn; 0 for `distributed`
    in a random order). `distributed`: the processes of torch.distributed share an epoch, as DistributedSampler does.
    `indices`: only these samples. `custom_fields`: classes of users' own fields by name. `drop_last`: no smaller batch
    at the end. `num_workers`: threads, no more than there are cores. `os_cache`: False for a file larger than memory.
    `batches_ahead`: how many are prepared while one is used. `recompile`: have operations make their code anew in each
    epoch.

    A batch stays as it is while it is held. Raises UserError for what cannot be done, DamagedSample while iterating.
    """

    def __init__(
        self,
        fname: str | None = None,
        batch_size: int | None = None,
        num_workers: int = -1,
        os_cache: bool = DEFAULT_OS_CACHE,
        order: ORDER_TYPE = OrderOption.SEQUENTIAL,
        distributed: bool = False,
        seed: int | None = None,
        indices: Sequence[int] | None = None,
        pipelines: Mapping[str, Sequence[Operation] | PipelineSpec | None] | None = None,
        custom_fields: Mapping[str, type[Field]] | None = None,
        drop_last: bool = True,
        batches_ahead: int = 3,
        recompile: bool = False,
        order_kwargs: Mapping[str, Any] | None = None,
        custom_field_mapper: Mapping[str, str] | None = None,
        path: str | None = None,
    ):
        if (fname is None) == (path is None) or batch_size is None:
            raise TypeError("Loader() needs `fname`, or FFCV-SSL's name for it, `path`; and `batch_size`")
        fname, path = fname or path, None
        self._args = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.fname, self.batch_size, self.batches_ahead = str(fname), int(batch_size), batches_ahead
        self.drop_last, self.distributed, self.recompile = drop_last, bool(distributed), recompile
        if self.batch_size < 1:
            raise UserError(f"`batch_size`={batch_size!r} is not a whole number from 1 on", "give one")
        self.seed = self._args["seed"] = _seed(seed, distributed, order)
        self.num_workers = min(num_workers, system.cores()) if num_workers >= 1 else system.cores()
        Compiler.set_num_threads(self.num_workers)
        self.reader = Reader(self.fname, custom_fields)
        self.indices = _indices(indices, self.reader)
        self.memory_manager = (OSCacheManager if os_cache else ProcessCacheManager)(self.reader)
        self._in_memory, self.next_epoch = bool(os_cache), 0
        self.traversal_order = _order(order, self, order_kwargs or {})
        self._open(pipelines or {}, custom_field_mapper or {})
        self.first_traversal_order = self.next_traversal_order()
        if not len(self):
            count = len(self.first_traversal_order)
            print(f"warning: {count} samples are too few for a batch of {self.batch_size}: no batches", file=sys.stderr)
        if os.environ.get("BETON_EXPLAIN", "0") not in ("", "0"):
            print(explain(self), file=sys.stderr)

    def _open(self, pipelines: Mapping[str, Any], mapper: Mapping[str, str]) -> None:
        self.pipeline_specs = _specs(pipelines, mapper, self.reader)
        self.field_name_to_f_ix = {name: number for number, name in enumerate(self.reader.handlers)}
        self._wanted = [
            Wanted(name, spec.source, spec.decoder, tuple(spec.transforms))
            for name, spec in self.pipeline_specs.items()
        ]
        with self.reader.open() as file:
            self._mapped = MappedFile(file)
            self._context = Context(self.reader, self._mapped, file.columns, self.batch_size, self.seed)
        self._engine: Engine | None = None
        self.generate_code()

    def generate_code(self) -> None:
        """Have all operations make their code anew, with the attributes that they have now."""
        self._engine = None
        self._plan()

    @property
    def code(self) -> list[Planned]:
        """How the pipelines run: another list where they run in another way."""
        return self._engine.planned

    def _plan(self) -> None:
        """Read the attributes of decoders and operations; keep what has not changed."""
        before = self._engine.planned if self._engine is not None else [None] * len(self._wanted)
        planned = [
            plan(wanted, self._context, number, was)
            for number, (wanted, was) in enumerate(zip(self._wanted, before, strict=True))
        ]
        if self._engine is not None and all(now is was for now, was in zip(planned, before, strict=True)):
            return
        self._engine = Engine(
            self._mapped, planned, self.reader.num_samples, self.batches_ahead, batch_size=self.batch_size,
            workers=self.num_workers, seed=self.seed, drop_last=False, in_memory=self._in_memory,
        )  # fmt: skip

    def next_traversal_order(self) -> Sequence[int]:
        """The samples of the next epoch."""
        return self.traversal_order.sample_order(self.next_epoch)

    def __iter__(self) -> Iterator[tuple]:
        order = np.asarray(self.next_traversal_order())[: len(self) * self.batch_size]
        if self.recompile:
            self.generate_code()
        else:
            self._plan()
        self.next_epoch += 1
        return EpochIterator(self, order)

    def __len__(self) -> int:
        batches = len(self.first_traversal_order) / self.batch_size
        return math.floor(batches) if self.drop_last else math.ceil(batches)

    def filter(self, field_name: str, condition: Callable[[Any], bool]) -> Loader:
        """A loader of those samples for which the condition holds of what the field's pipeline makes of them."""
        if field_name not in self.pipeline_specs:
            raise UserError(f"there is no pipeline '{field_name}'", f"name one of {', '.join(self.pipeline_specs)}")
        alone = dict.fromkeys([*self.reader.handlers, *self.pipeline_specs])
        given = self._args["pipelines"] or {}
        if field_name in given:
            alone[field_name] = given[field_name]
        else:
            del alone[field_name]
        every = {**self._args, "pipelines": alone, "order": OrderOption.SEQUENTIAL, "drop_last": False}
        every |= {"order_kwargs": None, "distributed": False}
        kept = [bool(condition(sample)) for (batch,) in Loader(**every) for sample in batch]
        return Loader(**{**self._args, "indices": self.indices[np.array(kept, bool)]})

    def close(self) -> None:
        """End epochs that were left early but are still held."""
        self._engine.close()


def _seed(seed: int | None, distributed: bool, order: Any) -> int:
    if seed is not None:
        return int(seed)
    if distributed and order == OrderOption.RANDOM:
        print("Warning: `distributed` without `seed`: the order is that of seed 0", file=sys.stderr)
        return 0
    return int(np.random.randint(0, np.iinfo("int32").max))


def _indices(indices: Sequence[int] | None, reader: Reader) -> np.ndarray:
    """The samples (uint64, as FFCV has them) that a loader may read."""
    if indices is None:
        return np.arange(reader.num_samples, dtype="uint64")
    found = np.array(indices)
    if found.dtype == bool or found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        what = f"`indices` are {found.dtype} of shape {found.shape}, not a list of whole numbers"
        raise UserError(what, "give the numbers of samples: np.flatnonzero() makes them of a mask")
    wrong = found[(found < 0) | (found >= reader.num_samples)]
    if len(wrong):
        what = f"`indices` has {wrong[0]}, and {reader.file_name} has {reader.num_samples} samples"
        raise UserError(what, "give the numbers of samples, each from 0 on")
    return found.astype("uint64") if not found.size else found


def _order(order: Any, loader: Loader, named: Mapping[str, Any]) -> TraversalOrder:
    if isinstance(order, OrderOption):
        return ORDER_MAP[order](loader)
    if inspect.isclass(order) and issubclass(order, TraversalOrder):
        return order(loader, **named)
    if isinstance(order, TraversalOrder):
        return order(loader) if callable(order) else order
    name = getattr(order, "__name__", repr(order))
    raise ValueError(f"the order {name} is neither an OrderOption nor a class made from TraversalOrder")


def _check_places(spec: PipelineSpec, name: str, field: Field) -> None:
    """Raise UserError for a decoder behind another one: it is not for such a field, or not the first."""
    for operation in spec.transforms:
        if isinstance(operation, DECODERS):
            what = f"{type(operation).__name__} of the pipeline '{name}' is not the first, or not for the field"
            what += f" '{spec.source}', a {type(field).__name__}"
            raise UserError(what, f"begin with {field.get_decoder_class().__name__}, or one made from it")


def _specs(pipelines: Mapping[str, Any], mapper: Mapping[str, str], reader: Reader) -> dict[str, PipelineSpec]:
    """The pipelines in the order of the columns, each with its decoder; the lists that were given stay as they are."""
    fields, found = reader.handlers, {}
    for name in [*fields, *(name for name in pipelines if name not in fields)]:
        given = pipelines.get(name, ())
        if given is None:
            continue
        if isinstance(given, PipelineSpec):
            spec = PipelineSpec(given.source, given.decoder, given.transforms)
        elif isinstance(given, Sequence) and not isinstance(given, str):
            spec = PipelineSpec(mapper.get(name, name), None, given)
        else:
            raise ValueError(f"the pipeline '{name}' is {given!r}, neither a list of operations nor a PipelineSpec")
        if isinstance(spec.source, Operation):
            what = f"the pipeline '{name}' goes on from an operation of another one"
            raise UserError(what, f"begin with a field: PipelineSpec('{next(iter(fields))}', decoder, operations)")
        if spec.source not in fields:
            what = f"the pipeline '{name}' is of no field of {reader.file_name}; it has {', '.join(fields)}"
            raise UserError(what, "name one of these, or give PipelineSpec(field, decoder, operations)")
        spec.accept_decoder(fields[spec.source].get_decoder_class(), name)
        _check_places(spec, name, fields[spec.source])
        found[name] = spec
    return found
