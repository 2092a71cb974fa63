"""The columns of a batch: which fields, with what stages, in which memory; and the names of the classes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from beton.errors import UserError
from beton.format.fields.base import Decoder
from beton.format.fields.image import Image
from beton.format.file import BetonFile
from beton.format.mapped import MappedFile
from beton.loading.buffers import BufferPool
from beton.loading.task import Task
from beton.stages.callables import OnBatch, OnImage
from beton.stages.like import Like, split
from beton.stages.parse import parse


def as_pipelines(fields: Mapping[str, Any], views: Mapping[str, Any] | None) -> tuple[dict, dict | None, dict]:
    """The pipelines of fields, those of views, and what is called with the batches of each, if anything is."""
    stages, after, seen = {}, {}, None if views is None else dict(views)
    for name, given in fields.items():
        stages[name], after[name] = _as_pipeline(name, given)
    for name, given in (views or {}).items():
        if isinstance(given, (list, tuple)) and len(given) == 2:  # else the decoder says what is wrong
            text, after[name] = _as_pipeline(name, given[0])
            seen[name] = text, given[1]
    return stages, seen, {name: called for name, called in after.items() if called}


def _as_pipeline(name: str, given: Any) -> tuple[str | tuple | None, list[OnBatch]]:
    """The stages of a field as one text, or with callables as a tuple; and what is called with its batches."""
    if given is None or isinstance(given, str):
        return given, []
    parts = list(given) if isinstance(given, (list, tuple)) else [given]
    if not parts or not all(isinstance(part, (str, OnImage, OnBatch)) or callable(part) for part in parts):
        what = f"`{name}`={given!r} is neither text nor a list of text and callables"
        raise UserError(what, "give stages, e.g. 'rrc(224)|flip'")
    after = []
    while parts and isinstance(parts[-1], OnBatch):
        after.insert(0, parts.pop())
    if any(isinstance(part, OnBatch) for part in parts):
        raise UserError(f"`{name}` has stages behind on_batch(...)", "put what is called with the batch last")
    if all(isinstance(part, str) for part in parts):
        return "|".join(parts) or None, after
    return tuple(p if isinstance(p, (str, OnImage)) else OnImage(p) for p in parts), after


def wanted(file: BetonFile, task: Task) -> list[str]:
    """The fields of a batch, in order; raises UserError for one that the file has not."""
    names, seen = task.columns, _viewed(file) if task.views else None
    if names is None:
        names = [n for n, column in file.columns.items() if column.field.loads and task.stages.get(n, "") is not None]
        names = [n for n in names if n != seen or n in task.stages]
    for name in [*names, *task.stages]:
        if name not in file.columns:
            what = f"{file.path} has no field '{name}'; it has {', '.join(file.columns)}"
            raise UserError(what, "name one of these")
    if not names and not task.views:
        raise UserError(f"no field of {file.path} is wanted", "name one in `columns`")
    return list(names)


def _viewed(file: BetonFile) -> str:
    """The field that `views` are of."""
    images = [name for name, column in file.columns.items() if isinstance(column.field, Image)]
    if "image" not in images and len(images) != 1:
        what = f"{file.path} has {len(images)} fields of images, and none is called 'image'"
        raise UserError(what, "leave out `views`")
    return "image" if "image" in images else images[0]


def decoders(file: BetonFile, mapped: MappedFile, task: Task, gpu: bool) -> dict[str, Decoder]:
    """What makes the columns of a task, in their order: by the name of the column, or of the first of several."""
    made: dict[str, Decoder] = {}
    names = wanted(file, task)
    viewed = _viewed(file) if task.views else None
    places = names if viewed in (None, *names) else [viewed, *names]
    if task.columns is None:
        places = [name for name in file.columns if name in places]
    for name in places:
        column = file.columns[name]
        if name in names:
            stages = stages_of(name, file, task)
            if isinstance(stages, tuple) and not isinstance(column.field, Image):
                raise UserError(f"the field '{name}' holds no photos, and its stages have callables", "leave them out")
            made[name] = column.field.decoder(column, mapped, stages, task.float_dtype, gpu)
            if task.with_geometry and isinstance(stages, (str, tuple)) and column.field.sides(column.records):
                _add(made, {f"{name}_geometry": _geometry(column, [stages], [f"{name}_geometry"])}, names)
        if name == viewed:
            from beton.format.fields._image_decoder import ViewsDecoder

            views = ViewsDecoder(column, mapped, task.views, task.float_dtype, gpu)
            _add(made, {views.columns[0]: views}, names)
            if task.with_geometry:
                texts, counts = zip(*task.views.values(), strict=True)
                shown = [f"{view}_geometry" for view in task.views]
                _add(made, {shown[0]: _geometry(column, texts, shown, list(counts))}, names)
    if task.with_geometry and not any(name.endswith("_geometry") for name in made):
        raise UserError(f"no images of {file.path} have stages", "leave out `with_geometry`")
    return made


def _add(made: dict[str, Decoder], more: dict[str, Decoder], names: list[str]) -> None:
    (decoder,) = more.values()
    for name in decoder.columns or more:
        if name in made or name in names:
            raise UserError(f"'{name}' is a view and a field too", "give the view another name")
    made.update(more)


def _geometry(column, texts, names: list[str], counts: list[int] | None = None) -> Decoder:
    from beton.loading.geometry import GeometryDecoder

    return GeometryDecoder(column, [parse(text, _channels(column)) for text in texts], names, counts)


def _channels(column) -> int:
    """Of the images of a column: 3, or what the shape of an array says."""
    return (*getattr(column.field, "shape", (0, 0, 3)), 1)[2]


def stages_of(name: str, file: BetonFile, task: Task) -> str | tuple | Like | None:
    """The stages of a field: their text, or those of the field that it is to follow."""
    text = task.stages.get(name)
    if text is None and file.columns[name].field.follows:
        leader = _leader(name, file, task)
        text = f"like({leader!r})" if leader else None
    found = split(text) if text is not None else None
    if found is None:
        return text
    leader, fill, own = found
    given = task.stages.get(leader)
    column = file.columns.get(leader)
    if given is None or column is None or leader == name or split(given) or not column.field.sides(column.records):
        what = f"the field '{name}' cannot follow '{leader}'"
        raise UserError(what, "name a field of images that has stages of its own, and is not like another")
    return Like(name, leader, parse(given, _channels(column)), *column.field.sides(column.records), own, fill)


def _leader(name: str, file: BetonFile, task: Task) -> str | None:
    """The image that a mask follows: `image`, or the only one with stages; None where there is none."""
    having = [
        field
        for field, column in file.columns.items()
        if task.stages.get(field) and not column.field.follows and not split(task.stages[field])
        if column.field.sides(column.records) is not None
    ]
    if "image" not in having and len(having) > 1:
        what = f"'{name}' may follow {' or '.join(having)}"
        raise UserError(what, f"say which: {name}=\"like('{having[0]}')\"")
    return "image" if "image" in having else next(iter(having), None)


class Columns:
    """What makes the columns of batches, and the memory of their rows.

    `names`: of the columns. `fields`: the keys of `decoders`. `numbers`: that come out of a sample.
    """

    def __init__(self, path: str, decoders: dict[str, Decoder], batch_size: int, pinned: bool):
        self.names = [name for key, decoder in decoders.items() for name in decoder.columns or (key,)]
        # Behind the columns of a batch: what their last stages, on the device, need to know
        behind = {key: decoder.companion for key, decoder in decoders.items() if decoder.companion}
        self._path, self._shown, self._behind = path, list(decoders.values()), list(behind)
        self.fields, self.decoders = [*decoders, *behind], [*self._shown, *behind.values()]
        shapes = [shape for decoder in self.decoders for shape in decoder.buffers]
        self.numbers = sum(math.prod(shape) for shape, _ in shapes)
        self._pools = [BufferPool((batch_size, *shape), dtype, pinned) for shape, dtype in shapes]

    def left(self, more: int) -> list[Any]:
        """What is left to do on the device for each column, as to_device() takes it; there are so many columns more."""
        found = []
        for name, decoder in zip(self.fields, self._shown, strict=False):
            place = len(self.names) + more + self._behind.index(name) if name in self._behind else None
            functions = [decoder.on_device] if decoder.columns is None else decoder.on_device
            found += [(function, place) for function in functions]
        return found + [None] * more

    @property
    def descriptions(self) -> list[str]:
        """How the decoders run, for the log."""
        return [decoder.description for decoder in self.decoders if decoder.description]

    def check_after(self, after: Mapping[str, list[OnBatch]]) -> None:
        """Raise UserError where a callable is for a column that is none."""
        for name in after:
            if name not in self.names:
                raise UserError(f"there is no column '{name}' for on_batch(...)", "leave it out")

    def take(self) -> list[np.ndarray]:
        """The buffers of a batch."""
        return [pool.take() for pool in self._pools]

    def give_back(self, buffers: list[np.ndarray]) -> None:
        """Return buffers that were not handed out."""
        for pool, buffer in zip(self._pools, buffers, strict=True):
            pool.give_back(buffer)

    def hand_out(self, buffers: list[np.ndarray], count: int) -> tuple[tuple, tuple]:
        """The columns of a batch of so many samples, and what is behind them; the buffers return when nobody uses these
        any more."""
        rows = iter([pool.hand_out(buffer, count) for pool, buffer in zip(self._pools, buffers, strict=True)])
        shown = []
        for decoder in self.decoders:
            made = decoder.to_batch(*[next(rows) for _ in decoder.buffers])
            shown += [made] if decoder.columns is None else made
        return tuple(shown[: len(self.names)]), tuple(shown[len(self.names) :])

    def draw(self, samples: np.ndarray, keys: np.ndarray) -> list[np.ndarray | None]:
        """What each decoder draws for the samples of a batch, for fill()."""
        drawn = []
        for name, decoder in zip(self.fields, self.decoders, strict=True):
            try:
                drawn.append(decoder.draw(samples, keys))
            except UserError:
                raise
            except Exception as error:
                raise self._failed(name, samples, error) from error
        return drawn

    def fill(self, workers: list, samples: np.ndarray, keys: np.ndarray, buffers: list, drawn: list) -> None:
        """Write samples into parts of the buffers of a batch, in a thread. Raises DamagedSample."""
        targets = iter(buffers)
        for name, decoder, worker, rows in zip(self.fields, self.decoders, workers, drawn, strict=True):
            own = [next(targets) for _ in decoder.buffers]
            try:
                decoder.fill(worker, samples, keys, *own, **({} if rows is None else {"drawn": rows}))
            except UserError:
                raise
            except Exception as error:
                raise self._failed(name, samples, error) from error

    def _failed(self, name: str, samples: np.ndarray, error: Exception) -> RuntimeError:
        which = f"the samples {', '.join(map(str, samples))} of {self._path} (field '{name}')"
        return RuntimeError(f"a stage failed ({error!r}) on {which}")


def class_names(file: BetonFile) -> list[str]:
    """Names of the classes, after checking that every label is that of one; numbers where there are no names."""
    if file.labels is None:
        return file.classes or []
    wrong = file.wrong_labels()
    if len(wrong):
        raise UserError(file.label_error(wrong[0]), "write the dataset again")
    return file.classes or [str(c) for c in range(int(file.labels.max()) + 1)]
