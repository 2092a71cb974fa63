"""Hugging Face data sets: Parquet or Arrow files with a column of images and one of classes.

`huggingface` with a folder of such files as `data_dir`, or `huggingface:OWNER/NAME` to fetch a set from the hub first.
"""

import json
import threading
from array import array
from collections import OrderedDict
from itertools import accumulate
from typing import Any

from beton import progress, system
from beton.errors import UserError
from beton.sources import _files

_ENDINGS = (".parquet", ".arrow")
_MOST_HELD = 512 << 20  # bytes of row groups that have been read last


class Table:
    """A Parquet or an Arrow file: rows in groups, of which single ones are read."""

    def __init__(self, path: str):
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path, self._parquet, self._batches = path, None, []
        try:
            if path.endswith(".parquet"):
                self._parquet = pq.ParquetFile(path)
                about = self._parquet.metadata
                self.schema = self._parquet.schema_arrow
                sizes = [about.row_group(i).num_rows for i in range(about.num_row_groups)]
            else:
                self._batches, self.schema = _mapped(pa, path)
                sizes = [len(batch) for batch in self._batches]
            self.first_rows = list(accumulate(sizes, initial=0))[:-1]
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"cannot read {path} ({_first_line(error)})", "fetch it again") from None

    def read(self, group: int, columns: list[str]) -> Any:
        """Some columns of a group of rows (pyarrow.Table); names of Parquet may go on with a dot. Raises OSError."""
        import pyarrow as pa

        try:
            if self._parquet is not None:
                return self._parquet.read_row_group(group, columns)
            names = [name.split(".")[0] for name in columns]
            return pa.Table.from_batches([self._batches[group]]).select(names)
        except pa.ArrowException as error:
            raise OSError(f"{self.path}: {_first_line(error)}") from None


def _mapped(pa, path: str) -> tuple[list, Any]:
    """The batches of an Arrow file, or of a stream as `datasets` writes them, and its schema; nothing is copied."""
    file = pa.memory_map(path)
    if file.read(6) == b"ARROW1":
        reader = pa.ipc.open_file(file)
        return [reader.get_batch(i) for i in range(reader.num_record_batches)], reader.schema
    file.seek(0)
    reader = pa.ipc.open_stream(file)
    return list(reader), reader.schema


class Rows:
    """The samples of several tables, in the order of their rows.

    `image`, `label`: names of the columns. `classes` are those of the ClassLabel, None where the column has no names.
    """

    fields = {"image": "image", "label": "int"}

    def __init__(self, tables: list[Table]):
        self._tables = tables
        self.image, self.label_column, self.classes = _columns(tables[0])
        self._group_of, self._row_of, self._labels = array("i"), array("i"), array("q")
        self._groups = [(table, group) for table in tables for group in range(len(table.first_rows))]
        self._names: list[str | None] = []
        for number in progress.shown(range(len(self._groups)), "row groups"):
            self._note(number)
        if None not in self._names:
            self.stored_name = lambda index: self._names[index]
        self._held, self._reading = OrderedDict(), threading.Lock()

    def _note(self, number: int) -> None:
        """Read the labels and names of a group; images are left where they are."""
        table, group = self._groups[number]
        try:
            rows = table.read(group, [f"{self.image}.path", self.label_column])
            labels = rows.column(self.label_column).to_pylist()
        except (OSError, KeyError) as error:
            what = f"cannot read {table.path} ({_first_line(error)})"
            raise UserError(what, "give tables of the same columns") from None
        wrong = next((row for row, label in enumerate(labels) if not isinstance(label, int)), None)
        if wrong is not None:
            what = f"row {wrong} of group {group} in {table.path} has no class ({self.label_column}={labels[wrong]!r})"
            raise UserError(what, "correct the table")
        self._labels.extend(labels)
        self._group_of.extend([number] * len(labels))
        self._row_of.extend(range(len(labels)))
        self._names += _paths(rows, self.image) or [None] * len(labels)

    def __len__(self) -> int:
        return len(self._labels)

    def label(self, index: int) -> int:
        """The number of a photo's class."""
        return self._labels[index]

    def name(self, index: int) -> str:
        """File and row, and what the photo was called where it had a name."""
        table, group = self._groups[self._group_of[index]]
        row = f"{table.path}, row {table.first_rows[group] + self._row_of[index]}"
        return row + (f" ({self._names[index]})" if self._names[index] else "")

    def identity(self, index: int) -> str:
        """Label, file, row and name."""
        return f"{self.label(index)} {self.name(index)}"

    def read(self, index: int) -> tuple[bytes, int]:
        """The photo's file, as it is, and its label; raises OSError if it cannot be read."""
        value = self._images(self._group_of[index])[self._row_of[index]].as_py()
        if isinstance(value, dict):
            value, path = value.get("bytes"), value.get("path")
            value = system.read_file(path) if value is None and path else value
        if value is None:
            raise OSError("it has no bytes")
        return value, self.label(index)

    def _images(self, number: int) -> Any:
        """The images of a group (pyarrow.ChunkedArray); those that were read last are held."""
        with self._reading:
            if number not in self._held:
                table, group = self._groups[number]
                self._held[number] = table.read(group, [self.image]).column(self.image)
            self._held.move_to_end(number)
            while len(self._held) > 1 and sum(images.nbytes for images in self._held.values()) > _MOST_HELD:
                self._held.popitem(last=False)
            return self._held[number]


def _columns(table: Table) -> tuple[str, str, list[str] | None]:
    """Names of the columns of images and of classes, and the classes'."""
    import pyarrow.types as types

    features = _features(table.schema)
    kinds = {name: feature.get("_type") for name, feature in features.items() if isinstance(feature, dict)}

    def first(kind: str, names: tuple[str, ...], fits) -> str:
        found = [name for name in table.schema.names if kinds.get(name) == kind]
        found += [name for name in names if name in table.schema.names and fits(table.schema.field(name).type)]
        if not found:
            what = f"{table.path} has no column of {kind} (it has {', '.join(table.schema.names)})"
            raise UserError(what, "give a data set of images and their classes")
        return found[0]

    image = first("Image", ("image", "img", "jpg"), lambda t: types.is_struct(t) or types.is_binary(t))
    label = first("ClassLabel", ("label", "labels", "fine_label", "class", "cls"), types.is_integer)
    return image, label, features.get(label, {}).get("names")


def _features(schema: Any) -> dict[str, dict]:
    """What `datasets` notes of the columns in a schema; nothing where it has not written it."""
    try:
        return json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    except (TypeError, KeyError, ValueError):
        return {}


def _paths(rows: Any, column: str) -> list | None:
    """What the images of a column were called; None where it does not say."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = rows.schema.field(column).type if column in rows.column_names else None
    if kind is None or not pa.types.is_struct(kind) or kind.get_field_index("path") < 0:
        return None
    return pc.struct_field(rows.column(column), "path").to_pylist()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _fetched(name: str) -> str:
    """The folder with the Parquet files of a set of the hub, which are fetched unless they are there; the hub makes
    such files of most sets that are kept otherwise."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError:
        what = "huggingface_hub, which fetches data sets from the hub, is not installed"
        raise UserError(what, "pip install huggingface_hub") from None
    try:
        for revision in (None, "refs/convert/parquet"):
            folder = snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns="*.parquet")
            if _files.holds(folder, _ENDINGS):
                return folder
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        what = f"cannot fetch the data set {name} ({_first_line(error)})"
        raise UserError(what, "check its name and the network; some sets need `hf auth login`") from None
    raise UserError(f"the data set {name} has no Parquet files", "fetch it, and give another source its folder")


def open_source(data_dir: str | None, split: str, seed: int = 0, count: int | None = None, of: str = "") -> Rows:
    """The samples of a split: of the tables in the folder `data_dir`, or of the set `of` of the hub."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        what = "pyarrow, which reads Parquet and Arrow files, is not installed"
        raise UserError(what, "pip install pyarrow") from None
    paths = _files.find(_fetched(of) if of else data_dir, _ENDINGS, split, "Parquet or Arrow files")
    return Rows([Table(path) for path in paths])


SOURCE = open_source
