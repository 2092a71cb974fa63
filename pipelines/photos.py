"""The stored photos of a .beton, mapped into memory: decode one, cut a rectangle out, resize it.

Decoding is libjpeg-turbo's with the flags that FFCV uses, resizing is FFCV's own (OpenCV, area) or Pillow's
(pipelines.resample).
"""

import ctypes
import mmap
import os

import numpy as np
import torch

from pipelines.beton import INT_FIELD, JPEG, RGB_FIELD, read_card, read_index
from pipelines.errors import DamagedSample, UserError
from pipelines.jit import ffcv_library, ffcv_resize, jit, tj_decompress, tj_destroy, tj_header, tj_init
from pipelines.resample import resample, shown

# Threads are ours: OpenCV shall not start its own beneath them (cv::setNumThreads).
ctypes.CDLL(ffcv_library())._ZN2cv13setNumThreadsEi(1)

_TJPF_RGB, _TJFLAG_FASTDCT, _TJFLAG_NOREALLOC = 0, 2048, 1024
_GOOD, _NO_HEADER, _OTHER_SIZE, _NO_DECODE = 0, 1, 2, 3
_WHY = {
    _NO_HEADER: "it is not a JPEG",
    _OTHER_SIZE: "the JPEG has another size than the file says",
    _NO_DECODE: "the JPEG cannot be decoded",
}


@jit
def open_decoder():
    """A libjpeg-turbo decompressor; close it with close_decoder. For one thread at a time."""
    return tj_init()


@jit
def close_decoder(decoder):
    """Free a decompressor."""
    tj_destroy(decoder)


@jit
def _decode(decoder, payload, height, width, pixels):
    """JPEG payload (uint8) -> pixels (uint8, at least height * width * 3); returns a code."""
    found = np.zeros(4, np.int32)
    at = found.ctypes.data
    # A JPEG of another size would be scaled to fit, silently: so its header is checked first
    if tj_header(decoder, payload.ctypes.data, payload.size, at, at + 4, at + 8, at + 12) != 0:
        return _NO_HEADER
    if found[0] != width or found[1] != height:
        return _OTHER_SIZE
    flags = _TJFLAG_FASTDCT | _TJFLAG_NOREALLOC
    code = tj_decompress(
        decoder, payload.ctypes.data, payload.size, pixels.ctypes.data, width, 0, height, _TJPF_RGB, flags
    )
    return _GOOD if code == 0 else _NO_DECODE


@jit
def _cut(decoder, file, image, sizes, samples, boxes, windows, pixels, target):
    """Fill target[n] with rectangle boxes[n] of photo samples[n]; returns (code, n) of the first failure.

    numba compiles this for windows that are None and for those that are not, each without the other's branch.
    """
    high, wide = target.shape[1], target.shape[2]
    for n in range(len(samples)):
        photo = image[samples[n]]
        height, width = np.int64(photo.height), np.int64(photo.width)
        start = np.int64(photo.data_ptr)
        source = file[start : start + sizes[samples[n]]]
        if photo.mode == JPEG:
            code = _decode(decoder, source, height, width, pixels)
            if code != _GOOD:
                return code, n
            source = pixels
        if windows is None:
            top, left, h, w = boxes[n]
            address, there = source.ctypes.data, target[n].ctypes.data
            ffcv_resize(0, address, height, width, top, top + h, left, left + w, there, high, wide)
        else:
            rows, columns, top, left, kind = windows[n]
            stored = source[: height * width * 3].reshape(height, width, 3)
            seen = shown(top, high, rows), shown(left, wide, columns)
            resample(stored, boxes[n], (rows, columns), seen[0], seen[1], kind, target[n])
    return _GOOD, -1


class Photos:
    """The photos and labels of a .beton with an image field 'image' and an int field 'label'.

    `heights`, `widths` (int64), `labels` (torch int64) and `pages` (int64: which page of the file a
    photo lies on) have one entry a sample. Raises UserError where the file is not such a .beton.
    """

    def __init__(self, path: str):
        index = read_index(path)
        for name, type_id in (("image", RGB_FIELD), ("label", INT_FIELD)):
            if index.fields.get(name) != type_id:
                raise UserError(
                    f"{path} has no {'image' if name == 'image' else 'int'} field '{name}'",
                    "write it with the fields image and label, as write_dataset.py does",
                )
        if index.num_samples == 0:
            raise UserError(f"{path} has no samples", "write it from a folder that has photos")
        self.path, self.num_samples = path, index.num_samples
        self._image, self._sizes = index.metadata["image"], index.sizes
        self.heights = self._image["height"].astype(np.int64)
        self.widths = self._image["width"].astype(np.int64)
        self.pages = self._image["data_ptr"].astype(np.int64) // max(index.page_size, 1)
        self.labels = torch.from_numpy(index.metadata["label"].astype(np.int64))
        card = read_card(path) or {}
        self.classes = card.get("classes") or [str(c) for c in range(int(self.labels.max()) + 1)]
        # Enough for the largest JPEG
        jpegs = self._image["mode"] == JPEG
        self.largest = int((self.heights * self.widths * 3)[jpegs].max(initial=0))
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), os.path.getsize(path), access=mmap.ACCESS_READ)
        self._bytes = np.frombuffer(self._map, np.uint8)

    def cut(
        self, decoder: int, samples: np.ndarray, boxes: np.ndarray, windows, pixels: np.ndarray, target: np.ndarray
    ):
        """Cut rectangles out of photos and resize them into target (uint8, n x H x W x 3).

        `samples` (int64, n) are indices, `boxes` (int64, n x 4) rectangles as (top, left, height,
        width), `windows` what a crop stage's method of that name says, `pixels` (uint8, `largest`) is
        scratch space of the calling thread and `decoder` its decompressor. Raises DamagedSample.
        """
        code, n = _cut(decoder, self._bytes, self._image, self._sizes, samples, boxes, windows, pixels, target)
        if code != _GOOD:
            raise DamagedSample(self.path, int(samples[n]), "image", _WHY[code])

    def prefetch(self, samples: np.ndarray) -> None:
        """Ask the system to read these photos from disk now, so that they are there when needed."""
        for sample in samples:
            start = int(self._image["data_ptr"][sample]) // mmap.PAGESIZE * mmap.PAGESIZE
            end = int(self._image["data_ptr"][sample]) + int(self._sizes[sample])
            self._map.madvise(mmap.MADV_WILLNEED, start, end - start)
