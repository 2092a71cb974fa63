"""The stored photos of a .beton one by one, for the commands that look into it.

They are read, not mapped: where the disk fails, that is an error of one sample and not the end of the process.
"""

import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipelines import kernels
from pipelines.beton import INT_FIELD, MODE_NAMES, image_field, read_index
from pipelines.errors import DamagedSample
from pipelines.threads import in_order

_CHUNK = 32


class Payloads:
    """An open .beton: `index` (see Index), `field` (name of its image field), `images` (a record a sample),
    `labels` (int64, or None where it has no int field 'label') and `classes` (names, or None). Raises UserError.
    """

    def __init__(self, path: str | Path):
        self.index = read_index(path)
        self.path, self.field = self.index.path, image_field(self.index.fields)
        self.images = self.index.metadata[self.field]
        self.labels = self.index.metadata["label"] if self.index.fields.get("label") == INT_FIELD else None
        classes = (self.index.card or {}).get("classes")
        self.classes = classes if isinstance(classes, list) and classes else None
        self._file = open(path, "rb")  # noqa: SIM115  closed by close()

    def __len__(self) -> int:
        return self.index.num_samples

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, sample: int) -> bytes:
        """The bytes of a photo as they are stored; raises DamagedSample."""
        start, size = int(self.images["data_ptr"][sample]), int(self.index.sizes[sample])
        try:
            payload = os.pread(self._file.fileno(), size, start)
        except OSError as error:
            raise self._damaged(sample, error.strerror or str(error)) from None
        if len(payload) < size:
            raise self._damaged(sample, "the file became shorter")
        return payload

    def verified(self, sample: int) -> bytes:
        """The same, compared with its checksum if there is one."""
        payload, checksums = self.read(sample), self.index.checksums
        if checksums is not None and zlib.crc32(payload) != checksums[sample]:
            raise self._damaged(sample, "its checksum differs")
        return payload

    def decode(self, sample: int, payload: bytes) -> np.ndarray:
        """The pixels (uint8, H x W x 3) of a photo whose bytes have been read; raises DamagedSample."""
        image = self.images[sample]
        try:
            pixels = np.frombuffer(payload, np.uint8)
            return kernels.decode(pixels, int(image["mode"]), int(image["height"]), int(image["width"]))
        except ValueError as error:
            raise self._damaged(sample, str(error)) from None

    def about(self, sample: int) -> str:
        """E.g. "sample 3 (cat, jpg, 64 x 48)": width x height."""
        image, label = self.images[sample], self.label_name(sample)
        kind = f"{MODE_NAMES[int(image['mode'])]}, {image['width']} x {image['height']}"
        return f"sample {sample} ({label}{', ' if label else ''}{kind})"

    def label_name(self, sample: int) -> str:
        """The name of a photo's class, its number where there is no name, nothing where there is no label."""
        if self.labels is None:
            return ""
        label = int(self.labels[sample])
        return str(self.classes[label]) if self.classes and 0 <= label < len(self.classes) else str(label)

    def _damaged(self, sample: int, why: str) -> DamagedSample:
        return DamagedSample(self.path, sample, self.field, why)


def each(work: Callable[[int], Any], count: int) -> Iterator[tuple[int, Any]]:
    """(i, work(i)) for i below count, in order, by as many threads as there are cores, with a bar."""
    workers = len(os.sched_getaffinity(0))
    with closing(in_order(work, 0, count, workers, _CHUNK)) as results:
        # No bar in the first second
        yield from tqdm(results, total=count, unit="photos", smoothing=0.05, delay=1, disable=None)
