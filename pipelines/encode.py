"""One photo as it will be stored: decoded, shrunk and encoded, or passed through."""

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import UnidentifiedImageError

from pipelines import beton, jpeg, kernels
from pipelines.decode import UNREADABLE, to_pixels
from pipelines.draws import sample_keys
from pipelines.shrink import shrink

_MIN_PAGE = 8 << 20
_MAX_PAGE = 1 << 31
_LONGEST_SIDE = 65535
_LONGEST_JPEG = 65500  # libjpeg's limit


@dataclass(frozen=True)
class WriteOptions:
    """How samples are stored.

    `write_mode`: 'raw' pixels, 'jpg', 'blocks', 'proportion' (exactly round(compress_probability * N) photos
    as JPEG), or 'smart' (JPEG where the raw pixels take more than `smart_threshold` bytes, as FFCV's code has
    it; without a threshold none); with the last two `rest` ('raw' or 'blocks') says what the others become.
    `max_resolution`: longest side in pixels, None for as it is. `jpeg_quality`: 1 to 100. `restart_markers`:
    JPEGs have them, so that parts can be decoded. `passthrough`: plain JPEG files of which none but
    the encoding would change are stored as they are. `chunk_size`: photos that a thread takes at a time, at
    most. `subset`: only the first so many photos, -1 for all. `on_error`: 'raise' or 'skip' for photos that
    cannot be read.
    """

    write_mode: str = "smart"
    max_resolution: int | None = None
    compress_probability: float = 0.5
    jpeg_quality: int = 90
    smart_threshold: int | None = None
    num_workers: int = 16
    chunk_size: int = 100
    subset: int = -1
    seed: int = 0
    on_error: str = "raise"
    restart_markers: bool = True
    passthrough: bool = False
    rest: str = "raw"


@dataclass
class Encoded:
    """One photo as it will be stored, or why it cannot be (`error`); `crc32` of the payload is the writer's to set."""

    payload: np.ndarray | None = None
    mode: int = 0
    width: int = 0
    height: int = 0
    passed: bool = False
    crc32: int = 0
    error: str | None = None


def page_size(options: WriteOptions) -> int:
    """A power of two in which the largest raw photo fits; FFCV's default of 8 MiB where that is enough."""
    largest = 3 * (options.max_resolution or 0) ** 2
    return min(_MAX_PAGE, max(_MIN_PAGE, 1 << max(largest - 1, 1).bit_length()))


def choose_jpegs(count: int, options: WriteOptions) -> list[bool | None]:
    """For each photo whether it becomes a JPEG; None where its size decides ('smart')."""
    if options.write_mode == "smart":
        return [None] * count
    if options.write_mode != "proportion":
        return [options.write_mode == "jpg"] * count
    chosen = np.zeros(count, bool)
    chosen[_lottery(count, options.seed)[: round(options.compress_probability * count)]] = True
    return chosen.tolist()


def _lottery(count: int, seed: int) -> np.ndarray:
    """All photos in a random order that depends on the seed alone."""
    return np.argsort(sample_keys(seed, 0, np.arange(count)), kind="stable")


def resize(pixels: np.ndarray, max_resolution: int | None) -> np.ndarray:
    """Shrink (uint8, H x W x 3) to a longest side of `max_resolution` pixels, as FFCV's writer does."""
    longest = max(pixels.shape[:2])
    if max_resolution is None or longest <= max_resolution:
        return pixels
    ratio = max_resolution / longest
    return shrink(pixels, *[max(1, int(ratio * side)) for side in pixels.shape[:2]])


def encode(data: bytes | np.ndarray, as_jpeg: bool | None, options: WriteOptions) -> Encoded:
    """Decode, shrink and encode one photo; `as_jpeg` None leaves the choice to its size ('smart')."""
    passed = _pass_through(data, as_jpeg, options)
    if passed is not None:
        return passed
    bgr = as_jpeg is True and isinstance(data, bytes)  # what the encoder takes
    try:
        pixels = to_pixels(data, bgr) if isinstance(data, bytes) else data
    except UnidentifiedImageError:  # whose text has an address in memory
        return Encoded(error="it is no image file, or damaged at its beginning")
    except UNREADABLE as error:
        return Encoded(error=str(error) or type(error).__name__)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        what = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        return Encoded(error=f"the source gives {what} instead of bytes or pixels, uint8 (H, W, 3)")
    if pixels.size == 0:
        return Encoded(error="it has no pixels")
    if max(pixels.shape[:2]) > _LONGEST_SIDE and options.max_resolution is None:
        return Encoded(error=f"a side is longer than {_LONGEST_SIDE} pixels")
    pixels = resize(pixels, options.max_resolution)
    height, width = pixels.shape[:2]
    if as_jpeg or (as_jpeg is None and _is_large(height, width, options)):
        return _to_jpeg(pixels if bgr else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    pixels = np.ascontiguousarray(pixels)
    if "blocks" not in (options.write_mode, options.rest) or options.write_mode == "raw":
        return Encoded(pixels.reshape(-1), beton.RAW, width, height)
    return Encoded(kernels.encode_blocks(pixels), beton.BLOCKS, width, height)


def _is_large(height: int, width: int, options: WriteOptions) -> bool:
    return options.smart_threshold is not None and 3 * height * width > options.smart_threshold


def _to_jpeg(bgr: np.ndarray, options: WriteOptions) -> Encoded:
    height, width = bgr.shape[:2]
    if max(height, width) > _LONGEST_JPEG:
        return Encoded(error=f"a side is longer than {_LONGEST_JPEG} pixels, the most that a JPEG can have")
    how = [cv2.IMWRITE_JPEG_QUALITY, int(options.jpeg_quality)]
    if options.restart_markers:
        how += [cv2.IMWRITE_JPEG_RST_INTERVAL, jpeg.restart_interval(width)]
    good, payload = cv2.imencode(".jpg", bgr, how)
    if not good:
        return Encoded(error="it cannot be encoded as JPEG")
    return Encoded(payload.reshape(-1), beton.JPEG, width, height)


def _pass_through(data: bytes | np.ndarray, as_jpeg: bool | None, options: WriteOptions) -> Encoded | None:
    """The file as it is, if it is to become a JPEG and is one that needs no change; else None."""
    if not options.passthrough or as_jpeg is False or not isinstance(data, bytes) or len(data) > page_size(options):
        return None
    height, width = jpeg.plain_size(data) or (0, 0)
    if not height or max(height, width) > (options.max_resolution or _LONGEST_SIDE):
        return None
    if as_jpeg is None and not _is_large(height, width, options):
        return None
    return Encoded(np.frombuffer(data, np.uint8), beton.JPEG, width, height, passed=True)
