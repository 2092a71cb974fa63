"""The stored photos of a .beton, mapped into memory: decode what a crop needs of one, and resize it."""

import mmap
import zlib

import numpy as np
import torch

from pipelines.beton import IMAGE_FIELDS, INT_FIELD, Index, file_id, read_index
from pipelines.errors import DamagedSample, UserError
from pipelines.jit import jit, kernels_close, kernels_cut, kernels_open
from pipelines.kernels import CODES

# Labels of a file without class names are below this: a damaged one could stand for 2**63 classes.
_MOST_CLASSES = 1 << 20


@jit
def open_scratch():
    """Memory that the kernels use again for each photo; close it with close_scratch. For one thread at a time."""
    return kernels_open()


@jit
def close_scratch(scratch):
    """Free what open_scratch made."""
    kernels_close(scratch)


@jit
def _cut(scratch, file, image, sizes, samples, boxes, windows, mirrors, size, pixels, numbers, scale_shift):
    """Fill images with rectangle boxes[n] of photo samples[n]; returns (code, n) of the first failure, or (0, -1).

    `pixels` and `numbers` are addresses of the first image, one of the two being 0.
    """
    count = size * size * 3
    for n in range(len(samples)):
        photo = image[samples[n]]
        code = kernels_cut(
            scratch, file.ctypes.data + np.int64(photo.data_ptr), np.uint64(sizes[samples[n]]), np.int64(photo.mode),
            np.int64(photo.height), np.int64(photo.width), boxes[n].ctypes.data, windows[n].ctypes.data,
            np.int64(mirrors[n]), size, size, pixels + n * count if pixels else 0,
            numbers + 4 * n * count if numbers else 0, scale_shift.ctypes.data, 0,
        )  # fmt: skip
        if code != 0:
            return code, n
    return 0, -1


def _class_names(index: Index) -> list[str]:
    """Names of the classes, after checking that every label is that of one."""
    names, labels = (index.card or {}).get("classes"), index.metadata["label"]
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise UserError(f"the card of {index.path} has no list of classes", "delete it or write the dataset again")
    count = len(names) if names else _MOST_CLASSES
    wrong = np.flatnonzero((labels < 0) | (labels >= count))
    if len(wrong):
        raise UserError(
            f"sample {wrong[0]} of {index.path} has the label {labels[wrong[0]]}, not one of 0 to {count - 1}",
            "write the dataset again",
        )
    return names or [str(c) for c in range(int(labels.max()) + 1)]


class Photos:
    """The photos and labels of a .beton with an image field 'image' and an int field 'label'.

    `heights`, `widths` (int64), `labels` (torch int64) and `pages` (int64: which page of the file a
    photo lies on) have one entry a sample. `verify`: compare every payload that is read with its checksum.
    Raises UserError where the file is not such a .beton.
    """

    def __init__(self, path: str, verify: bool = False):
        index = read_index(path)
        for name, type_ids in (("image", IMAGE_FIELDS), ("label", (INT_FIELD,))):
            if index.fields.get(name) not in type_ids:
                raise UserError(
                    f"{path} has no {'image' if name == 'image' else 'int'} field '{name}'",
                    "write it with the fields image and label, as write_dataset.py does",
                )
        if verify and index.checksums is None:
            raise UserError(f"{path} has no checksums", "set data.verify=0, or write the dataset again")
        self.path, self.num_samples = path, index.num_samples
        self._image, self._sizes = index.metadata["image"], index.sizes
        self._checksums = index.checksums if verify else None
        self.heights = self._image["height"].astype(np.int64)
        self.widths = self._image["width"].astype(np.int64)
        self.pages = self._image["data_ptr"].astype(np.int64) // index.page_size
        self.labels = torch.from_numpy(index.metadata["label"].astype(np.int64))
        self.classes = _class_names(index)
        with open(path, "rb") as file:
            if file_id(file) != index.file_id:
                raise UserError(f"{path} was replaced while it was opened", "start again")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._bytes = np.frombuffer(self._map, np.uint8)

    def close(self) -> None:
        """Let go of the file. No thread may be reading photos."""
        self._bytes = self._map = None  # unmapped when an exception that still holds a part of it is gone

    def check(self, samples: np.ndarray) -> None:
        """Raise IndexError for a sample that the file has not, UserError when the file was cut off since it was opened.

        Reading what has been cut off would end the process (SIGBUS).
        """
        if self._bytes is None:
            raise RuntimeError(f"{self.path} is closed")
        wrong = samples[(samples < 0) | (samples >= self.num_samples)]
        if len(wrong):
            raise IndexError(f"sample {wrong[0]} of {self.path} is out of range; it has {self.num_samples} samples")
        if self._map.size() < len(self._map):
            raise UserError(f"{self.path} was cut off while it was in use", "write the dataset again")

    def _verify(self, samples: np.ndarray) -> None:
        for sample in samples.tolist():
            start = int(self._image["data_ptr"][sample])
            payload = self._bytes[start : start + int(self._sizes[sample])]
            if zlib.crc32(payload) != self._checksums[sample]:
                raise DamagedSample(self.path, sample, "image", "its checksum differs")

    def cut(
        self, scratch: int, samples: np.ndarray, boxes: np.ndarray, windows: np.ndarray, mirrors: np.ndarray,
        target: np.ndarray, scale_shift: np.ndarray,
    ) -> None:  # fmt: skip
        """Cut rectangles out of photos and resize them into target (n x S x S x 3).

        `samples` (int64, n) are indices, `boxes` (int64, n x 4) rectangles as (top, left, height, width),
        `windows` what a crop stage's method of that name says, `mirrors` (bool, n) which images are mirrored
        then. `target` has pixels (uint8) or numbers (float32): pixel * scale + shift for each channel, of
        `scale_shift` (float32, 6). `scratch` is the calling thread's own. Raises DamagedSample, and what check raises.
        """
        self.check(samples)
        if self._checksums is not None:
            self._verify(samples)
        there = target.ctypes.data
        pixels, numbers = (there, 0) if target.dtype == np.uint8 else (0, there)
        code, n = _cut(
            scratch, self._bytes, self._image, self._sizes, samples, boxes, windows, mirrors, target.shape[1],
            pixels, numbers, scale_shift,
        )  # fmt: skip
        if code:
            raise DamagedSample(self.path, int(samples[n]), "image", CODES[code])

    def prefetch(self, samples: np.ndarray) -> None:
        """Ask the system to read these photos from disk now, so that they are there when needed."""
        self.check(samples)
        for sample in samples:
            start = int(self._image["data_ptr"][sample]) // mmap.PAGESIZE * mmap.PAGESIZE
            end = int(self._image["data_ptr"][sample]) + int(self._sizes[sample])
            self._map.madvise(mmap.MADV_WILLNEED, start, end - start)
