"""How the pipelines of a loader run: what the threads do in one pass, what is compiled or plain, what is for a GPU."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from beton.errors import UserError
from beton.ffcv import known
from beton.ffcv.fields.base import Field
from beton.ffcv.fields.decoders import BytesDecoder, FloatDecoder, IntDecoder, NDArrayDecoder, SimpleRGBImageDecoder
from beton.ffcv.memory_managers import OSCacheManager
from beton.ffcv.pipeline.operation import Operation
from beton.ffcv.pipeline.state import State
from beton.ffcv.rows import Bytes, Numbers
from beton.ffcv.segment import FIRST_STATE, Segment, Source, name_of
from beton.ffcv.transforms.ops import ToDevice, ToTensor, ToTorchImage
from beton.format.fields._image_decoder import ImageDecoder, keys_of_view
from beton.format.fields._image_output import Output as ImageOutput
from beton.format.fields.base import Decoder
from beton.format.fields.image import Image
from beton.format.tables import Column
from beton.stages.base import Stage

DECODERS = (SimpleRGBImageDecoder, IntDecoder, FloatDecoder, NDArrayDecoder, BytesDecoder)
FUSED, KERNEL, COMPILED, PLAIN, COPY = "fused", "kernel", "compiled", "plain", "copy"


@dataclass(frozen=True)
class Wanted:
    """A pipeline as the user has given it: the `decoder` of the field `source`, then `operations`."""

    name: str
    source: str
    decoder: Operation
    operations: tuple[Operation, ...]


@dataclass
class Context:
    """What pipelines are planned for. `mapped`: the file; `reader`: its tables; `file_columns`: the library's."""

    reader: Any
    mapped: Any
    file_columns: dict[str, Column]
    batch_size: int
    seed: int

    @cached_property
    def manager(self) -> OSCacheManager:
        """For users' decoders."""
        return OSCacheManager(self.reader, self.mapped.bytes)

    def records(self, source: str) -> np.ndarray:
        """The records of a field."""
        return self.reader.metadata[f"f{self.reader.field_names.index(source)}"]


class ImagesOfView(ImageDecoder):
    """Images whose random draws are those of the `number`-th pipeline of images."""

    def __init__(self, column: Column, mapped: Any, output: ImageOutput, number: int):
        super().__init__(column, mapped, [output])
        self._number = number

    def keys_of(self, output: int, keys: np.ndarray) -> np.ndarray:
        """Keys of the pipeline's own, but for the first's."""
        return keys_of_view(keys, self._number) if self._number else keys


@dataclass
class Planned:
    """One pipeline. The threads' `decoder` fills rows, None where the user's own decodes; `shown` makes of the rows of
    a batch what the operations take. `on_host` runs on the batch, in a thread; then, on a GPU's stream, `copy` and
    `on_gpu`. `steps`: (operation, how it runs, why). `told`: what the plan depends on.
    """

    name: str
    decoder: Decoder | None
    shown: Callable[[Any], Any] | None
    on_host: Segment | None
    told: Any
    steps: list[tuple[str, str, str]] = field(default_factory=list)
    copy: ToDevice | None = None
    on_gpu: Segment | None = None
    state: State | None = None

    def host(self, rows: Any, samples: np.ndarray, epoch: int, number: int) -> Any:
        """What the threads make of a batch: of its rows, and of the numbers of its samples (int64)."""
        batch = rows if self.shown is None else self.shown(rows)
        return batch if self.on_host is None else self.on_host.run(batch, samples, epoch, number)

    def device(self, batch: Any, samples: np.ndarray, epoch: int, number: int) -> Any:
        """What is left for a GPU, on the stream of now. The host's memory must be held until that is done."""
        if self.copy is None:
            return batch
        batch = torch.as_tensor(batch).to(self.copy.device, non_blocking=True)
        return batch if self.on_gpu is None else self.on_gpu.run(batch, samples, epoch, number)


def plan(wanted: Wanted, context: Context, number: int, before: Planned | None = None) -> Planned:
    """Plan a pipeline, the `number`-th; `before` is given back where nothing has changed that it depends on.

    Raises UserError, or what an operation raises, with the names of the pipeline and of the operation.
    """
    decoder = copy.copy(wanted.decoder)  # one may be in several pipelines, and those of several files
    handler = context.reader.handlers[wanted.source]
    _check_decoder(wanted, decoder, handler)
    planner = _Planner(wanted, context, number, decoder, handler)
    if before is not None and before.told == planner.told:
        return before
    return planner.planned()


class _Planner:
    """The planning of one pipeline, from the front to the end."""

    def __init__(self, wanted: Wanted, context: Context, number: int, decoder: Operation, handler: Field):
        self._wanted, self._context, self._number, self._decoder = wanted, context, number, decoder
        self._records, self._handler = context.records(wanted.source), handler
        self._left = list(wanted.operations)
        self._stages: list[Stage] = []
        self._steps: list[tuple[str, str, str]] = []
        self._gpu = next((at for at, op in enumerate(self._left) if _goes_to_gpu(op)), None)
        self.told = told(decoder), *(told(op) for op in self._left if known.pixels_of(op) is not None)

    def planned(self) -> Planned:
        """The plan."""
        decoder, shown = self._rows()
        first = len(self._wanted.operations) - len(self._left)
        at = None if self._gpu is None else self._gpu - first
        on_host, state = self._segment(self._left[:at], first, decodes=decoder is None)
        made = Planned(self._wanted.name, decoder, shown, on_host, self.told, self._steps, state=state)
        if at is not None:
            made.copy = self._left[at]
            self._steps.append((name_of(made.copy), COPY, "on a stream of its own"))
            state, _ = made.copy.declare_state_and_memory(state)
            made.on_gpu, made.state = self._of(self._left[at + 1 :], state, self._gpu + 1, self._about())
        return made

    # The threads' part

    def _rows(self) -> tuple[Decoder | None, Callable | None]:
        decoder = self._decoder
        decoder.accept_field(self._handler)
        decoder.accept_globals(self._records, None)
        if isinstance(decoder, SimpleRGBImageDecoder):
            return self._images()
        if not any(known.is_plain(decoder, kind) for kind in DECODERS):
            return None, None
        self._state, _ = decoder.declare_state_and_memory(FIRST_STATE)
        self._steps.append((name_of(decoder), FUSED, "copied by the threads"))
        if isinstance(decoder, (IntDecoder, FloatDecoder)):
            return Numbers(self._records.astype(decoder.dtype)), torch.Tensor.numpy
        about = self._wanted.source, self._context.mapped
        if isinstance(decoder, BytesDecoder):
            return Bytes(*about, self._records["ptr"], self._records["size"]), torch.Tensor.numpy
        dtype, shape = np.dtype(self._state.dtype), self._state.shape
        sizes = np.full(len(self._records), dtype.itemsize * int(np.prod(shape)), np.uint64)

        def as_arrays(rows: torch.Tensor) -> np.ndarray:
            return rows.numpy().view(dtype).reshape(len(rows), *shape)

        return Bytes(*about, self._records, sizes), as_arrays

    def _images(self) -> tuple[Decoder | None, Callable | None]:
        """Decoder and the operations behind it that are stages of the library's."""
        decoder, where = self._decoder, f"{name_of(self._decoder)} of the pipeline '{self._wanted.name}'"
        try:
            self._state, _ = decoder.declare_state_and_memory(FIRST_STATE)
            crop = known.crop_of(decoder)
        except ValueError as error:
            raise UserError(f"{where}: {error}", "give it other arguments") from None
        if crop is None:
            return None, None
        self._stages = [crop]
        self._steps.append((name_of(decoder), FUSED, "decoded and cropped by the threads"))
        self._take_pixels()
        dtype, image_first = self._take_normalize()
        for place, stage in enumerate(self._stages):
            stage.stage_index = place
        output = ImageOutput(self._stages, dtype, gpu=False)
        column = self._context.file_columns[self._wanted.source]
        if column.sizes is None:
            column = replace(column, field=Image(), sizes=_sizes(self._context.reader, self._records["data_ptr"]))
        rows = ImagesOfView(column, self._context.mapped, output, self._number)
        if image_first:
            return rows, None if image_first == "channels_last" else torch.Tensor.contiguous
        return rows, _as_photos

    def _take_pixels(self) -> None:
        while self._left:
            operation = self._left[0]
            try:
                stage = known.pixels_of(operation)
                if stage is None:
                    return
                stage.check_images(*self._state.shape[:2])
            except ValueError as error:
                what = f"{name_of(operation)} of the pipeline '{self._wanted.name}': {error}"
                raise UserError(what, "give it other arguments") from None
            self._stages.append(stage)
            self._steps.append((name_of(operation), FUSED, "in the pass that decodes"))
            self._left.pop(0)

    def _take_normalize(self) -> tuple[torch.dtype, str | None]:
        """Take ToTensor, ToTorchImage and what makes floats, where all are there and for the CPU; the dtype, and the
        memory format of images that come out with their channels first."""
        if self._gpu is not None:
            return torch.uint8, None
        left = self._left
        found = known.normalize_of(left)
        behind = left[found[2] :] if found and isinstance(left[0], known.NormalizeImage) else left
        count = next((n for n, op in enumerate(behind) if not isinstance(op, (ToTensor, ToDevice))), len(behind))
        image = behind[count] if count < len(behind) else None
        if not count or not isinstance(behind[0], ToTensor) or not known.is_plain(image, ToTorchImage):
            return torch.uint8, None
        if behind is left:
            found = known.normalize_of(behind[count + 1 :])
        elif found[1] == torch.float16 and not image.convert_int16:
            return torch.uint8, None
        if found is None:
            return torch.uint8, None
        stage, dtype, more = found
        taken = left[: count + 1 + more]
        self._steps += [(name_of(operation), FUSED, "in the pass that decodes") for operation in taken]
        self._stages.append(stage)
        self._left = left[count + 1 + more :]
        height, width, channels = self._state.shape
        self._state = State(False, torch.device("cpu"), (channels, height, width), dtype)
        return dtype, "channels_last" if image.channels_last else "contiguous"

    # What is left

    def _segment(self, operations: Sequence[Operation], first: int, decodes: bool) -> tuple[Segment | None, State]:
        if decodes:
            manager = self._context.manager
            source = self._about(manager.compile_reader(), manager.schedule_epoch([]).state)
            return self._of([self._decoder, *operations], FIRST_STATE, first, source, decodes=True)
        return self._of(operations, self._state, first, self._about())

    def _about(self, *read_from: Any) -> Source:
        return Source(self._handler, self._records, *read_from, dataset=self._context.mapped.path)

    def _of(self, operations, state: State, first: int, source: Source, decodes: bool = False):
        if not operations:
            return None, state
        made = Segment(
            self._wanted.name, operations, state, self._context.batch_size, source=source, decodes=decodes,
            seed=self._context.seed, first=first, pinned=self._gpu is not None,
        )  # fmt: skip
        made.compile()
        why = {KERNEL: "compiled with this library", COMPILED: "numba, once a batch", PLAIN: "Python, once a batch"}
        self._steps += [(name, how, why.get(how, "")) for name, how in made.parts]
        return made, made.state


def _as_photos(images: torch.Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).numpy()


def _goes_to_gpu(operation: Any) -> bool:
    return known.is_plain(operation, ToDevice) and torch.device(operation.device).type != "cpu"


def told(operation: Any) -> tuple:
    """What the attributes of an operation are, as something that can be compared."""
    given = {k: v for k, v in vars(operation).items() if k not in ("metadata", "memory_read", "field")}
    values = [(k, v.tobytes() if isinstance(v, np.ndarray) else repr(v)) for k, v in given.items()]
    return type(operation), *values


def _check_decoder(wanted: Wanted, decoder: Operation, handler: Field) -> None:
    """Raise UserError where FFCV's decoder is not for such a field."""
    record = np.dtype(handler.metadata_type)
    names = record.names or ()
    for kind, fits in (
        (SimpleRGBImageDecoder, {"mode", "width", "height", "data_ptr"} <= set(names)),
        (BytesDecoder, {"ptr", "size"} <= set(names)),
        (NDArrayDecoder, record == np.dtype("<u8") and hasattr(handler, "shape") and hasattr(handler, "dtype")),
        ((IntDecoder, FloatDecoder), not names and record.kind in "iuf"),
    ):
        if isinstance(decoder, kind) and not fits:
            what = f"{name_of(decoder)} of the pipeline '{wanted.name}' cannot decode the field '{wanted.source}'"
            own = handler.get_decoder_class().__name__
            raise UserError(f"{what}, which is a {type(handler).__name__}", f"use {own}, or one made from it")


def _sizes(reader: Any, addresses: np.ndarray) -> np.ndarray:
    """Bytes of what is stored at addresses (int64). Raises UserError where something is not."""
    table = reader.alloc_table[np.argsort(reader.alloc_table["ptr"], kind="stable")]
    at = np.searchsorted(table["ptr"], addresses).clip(max=max(len(table) - 1, 0))
    if not len(table) or (table["ptr"][at] != addresses).any():
        what = f"{reader.file_name} is not a complete .beton file (samples without an entry in the allocation table)"
        raise UserError(what, "write the dataset again")
    return table["size"][at].astype(np.int64)
