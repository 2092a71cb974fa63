"""image: a picture of three channels of 8 bits, stored in one of several modes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from beton.errors import UserError
from beton.format import jpeg
from beton.format.fields.base import Decoder, Encoded, Field
from beton.format.modes import MODES, by_code
from beton.format.modes.base import Mode

_LONGEST_SIDE = 65535
# Chosen by size or by lot for each image
_BY_SIZE, _BY_LOT = "smart", "proportion"


@dataclass(frozen=True)
class Image(Field):
    """Pictures. A batch of them is N x 3 x H x W in channels_last memory format, of the size that the stages say.

    A value is the bytes of an image file, a PIL image, or pixels (uint8, H x W x 3, RGB).

    `write_mode`: how they are stored: 'raw' pixels, 'jpg', 'blocks', 'proportion' (exactly
    round(compress_probability * N) as JPEG), or 'smart' (JPEG where the raw pixels take more than
    `smart_threshold` bytes, as FFCV's code has it; without a threshold none); with the last two `rest`
    ('raw' or 'blocks') says what the others become. `max_resolution`: longest side in pixels, None for
    as it is. `jpeg_quality`: 1 to 100. `restart_markers`: JPEGs have them, so that parts can be
    decoded. `passthrough`: plain JPEG files of which none but the encoding would change are stored as they are.
    `exif`: 'ignore' the orientation that a camera has noted, as torchvision does, or 'apply' it.
    """

    write_mode: str = "smart"
    max_resolution: int | None = None
    compress_probability: float = 0.5
    jpeg_quality: int = 90
    smart_threshold: int | None = None
    restart_markers: bool = True
    passthrough: bool = False
    rest: str = "raw"
    exif: str = "ignore"

    type_names = {2: "rgb_image", 7: "blocks_image"}  # FFCV knows the first
    record = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
    pointer = "data_ptr"

    def __post_init__(self):
        modes = MODES.names()
        _check_choice("write_mode", self.write_mode, [*modes, _BY_SIZE, _BY_LOT])
        _check_choice("rest", self.rest, [name for name in modes if name != "jpg"])
        if self.exif not in ("ignore", "apply"):
            raise UserError(f"`exif`={self.exif!r} is neither 'ignore' nor 'apply'", "give one of these")
        _check_number("max_resolution", self.max_resolution, 1, _LONGEST_SIDE)
        _check_number("jpeg_quality", self.jpeg_quality, 1, 100)
        _check_number("compress_probability", self.compress_probability, 0, 1)
        _check_number("smart_threshold", self.smart_threshold, 0, 10**12)

    # Writing

    def choices(self, count: int, seed: int) -> Sequence[str | None]:
        """The mode of each image; None where its size decides ('smart')."""
        if self.write_mode == _BY_SIZE:
            return [None] * count
        if self.write_mode != _BY_LOT:
            return [self.write_mode] * count
        from beton.rng import permutation

        chosen = np.full(count, self.rest, dtype=object)
        chosen[permutation(count, seed)[: round(self.compress_probability * count)]] = "jpg"
        return chosen.tolist()

    def corrections(self, choices: list) -> list[tuple[int, str]]:
        """With 'proportion': the first images of the kind of which there are too many get the other mode."""
        if self.write_mode != _BY_LOT:
            return []
        surplus = choices.count("jpg") - round(self.compress_probability * len(choices))
        many, few = ("jpg", self.rest) if surplus > 0 else (self.rest, "jpg")
        return [(number, few) for number, choice in enumerate(choices) if choice == many][: abs(surplus)]

    def largest_payload(self) -> int:
        """Bytes of the raw pixels of the largest image."""
        return 3 * (self.max_resolution or 0) ** 2

    def encode(self, value: Any, choice: str | None = None) -> Encoded:
        """Decode, shrink and encode an image in mode `choice`; None leaves the choice to its size ('smart')."""
        from beton.format.photo_files import upright

        turned = _orientation(value)
        note = None if turned == 1 else f"EXIF orientation: {'ignored' if self.exif == 'ignore' else 'applied'}"
        turned = turned if self.exif == "apply" else 1
        passed = self._pass_through(value, choice) if turned == 1 else None
        if passed is not None:
            passed.note = note
            return passed
        mode = None if choice is None else MODES.get(choice)
        bgr = mode is not None and mode.bgr and isinstance(value, bytes)  # decoded in the order that is encoded
        pixels = _pixels(value, bgr)
        if isinstance(pixels, str):
            return Encoded(error=pixels)
        if max(pixels.shape[:2]) > _LONGEST_SIDE and self.max_resolution is None:
            return Encoded(error=f"a side is longer than {_LONGEST_SIDE} pixels")
        pixels = self._shrink(upright(pixels, turned))
        height, width = pixels.shape[:2]
        mode = mode or MODES.get("jpg" if self._is_large(height, width) else self.rest)
        if mode.bgr and not bgr:
            pixels = pixels[..., ::-1]
        try:
            payload = mode.encode(np.ascontiguousarray(pixels), self)
        except ValueError as error:
            return Encoded(error=str(error))
        return Encoded((mode.code, width, height), payload, note=note)

    def _pass_through(self, value: Any, choice: str | None) -> Encoded | None:
        """The file as it is, if it is to become a JPEG and is one that needs no change; else None."""
        if not self.passthrough or choice not in ("jpg", None) or not isinstance(value, bytes):
            return None
        height, width = jpeg.plain_size(value) or (0, 0)
        if not height or max(height, width) > (self.max_resolution or _LONGEST_SIDE):
            return None
        if choice is None and not self._is_large(height, width):
            return None
        return Encoded((MODES.get("jpg").code, width, height), np.frombuffer(value, np.uint8), passed=True)

    def keeps(self, before: Image | None, record: Any, payload: bytes, choice: str | None) -> bool:
        """Pixels and blocks need none where mode and size stay; JPEGs too with passthrough, or of the same quality."""
        height, width = int(record["height"]), int(record["width"])
        mode = self._mode(record).name
        if max(height, width) > (self.max_resolution or _LONGEST_SIDE):
            return False
        if mode != (choice or ("jpg" if self._is_large(height, width) else self.rest)):
            return False
        if mode != "jpg":
            return True
        if self.exif == "apply" and _orientation(payload) != 1:
            return False
        alike = ("jpeg_quality", "restart_markers")
        same = before is not None and all(getattr(self, name) == getattr(before, name) for name in alike)
        return self.passthrough or same

    def given(self, record: Any, payload: bytes) -> Any:
        """A JPEG as it is, all others as pixels."""
        return payload if self._mode(record).name == "jpg" else self.value(record, payload)

    def _is_large(self, height: int, width: int) -> bool:
        return self.smart_threshold is not None and 3 * height * width > self.smart_threshold

    def _shrink(self, pixels: np.ndarray) -> np.ndarray:
        """Shrink (uint8, H x W x 3) to a longest side of `max_resolution` pixels, as FFCV's writer does."""
        from beton.format.downscale import downscale

        longest = max(pixels.shape[:2])
        if self.max_resolution is None or longest <= self.max_resolution:
            return pixels
        ratio = self.max_resolution / longest
        return downscale(pixels, *[max(1, int(ratio * side)) for side in pixels.shape[:2]])

    def type_id(self, records: np.ndarray) -> int:
        """FFCV shall refuse a file of which it cannot decode all."""
        stock = [code for code, mode in by_code().items() if mode.stock]
        return 2 if np.isin(records["mode"], stock).all() else 7

    # Reading

    def check(self, type_id: int, records: np.ndarray, sizes: np.ndarray) -> str | None:
        """Why these cannot be the records of a complete file, or None."""
        modes = {code: mode for code, mode in by_code().items() if mode.stock or type_id == 7}
        heights, widths = records["height"].astype(np.int64), records["width"].astype(np.int64)
        if (widths * heights == 0).any() or not np.isin(records["mode"], list(modes)).all():
            return "samples without a size or of an unknown mode"
        for code, mode in modes.items():
            expected = mode.size(heights, widths)
            if expected is not None and ((records["mode"] == code) & (sizes != expected)).any():
                return f"{mode.name} samples whose size is not that of their pixels"
        return None

    def value(self, record: Any, payload: bytes) -> np.ndarray:
        """Pixels (uint8, H x W x 3, RGB). Raises ValueError with the reason where the payload is damaged."""
        mode, height, width = self._mode(record), int(record["height"]), int(record["width"])
        return mode.decode(np.frombuffer(payload, np.uint8), height, width)

    def describe(self, record: Any) -> str:
        """E.g. "jpg, 64 x 48": width x height."""
        return f"{self._mode(record).name}, {record['width']} x {record['height']}"

    def choice_of(self, record: Any) -> str:
        """The name of its mode."""
        return self._mode(record).name

    def summary(self, records: np.ndarray, sizes: np.ndarray) -> dict[str, str]:
        """Photos and bytes of each mode; widths and heights."""
        facts = self.facts(records, sizes)
        modes = {
            name: f"{count} photos, {facts['bytes_per_mode'][name] / 1e6:.1f} MB"
            for name, count in facts["samples_per_mode"].items()
        }
        sides = {side: records[side] for side in ("width", "height")}
        return modes | {
            side: f"{values.min()} to {values.max()} pixels, median {np.median(values):g}"
            for side, values in sides.items()
        }

    @staticmethod
    def _mode(record: Any) -> Mode:
        return by_code()[int(record["mode"])]

    def facts(self, records: np.ndarray, sizes: np.ndarray, passed: np.ndarray | None = None) -> dict[str, Any]:
        """Images and bytes of each mode; how many are stored as they were."""
        names = {code: mode.name for code, mode in by_code().items()}
        of_mode = {names[code]: records["mode"] == code for code in np.unique(records["mode"]).tolist()}
        return {
            "samples_per_mode": {name: int(chosen.sum()) for name, chosen in of_mode.items()},
            "bytes_per_mode": {name: int(sizes[chosen].sum()) for name, chosen in of_mode.items()},
            "passed_through": 0 if passed is None else int(passed.sum()),
        }

    def decoder(self, column, mapped, stages, dtype, gpu) -> Decoder:
        """Images need stages: a batch's have one size."""
        if stages is None:
            what = f"no stages are given for the images of the field '{column.name}'"
            raise UserError(what, f"give {column.name}='rrc(224)|flip|normalize', or the like")
        from beton.format.fields._image_decoder import ImageDecoder

        return ImageDecoder(column, mapped, stages, dtype, gpu)


def _orientation(value: Any) -> int:
    from PIL import Image as Pillow

    from beton.format import photo_files

    return photo_files.orientation(value) if isinstance(value, (bytes, Pillow.Image)) else 1


def _pixels(value: Any, bgr: bool) -> np.ndarray | str:
    """The pixels (uint8, H x W x 3) of a value, or why there are none."""
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    from beton.format import photo_files

    try:
        if isinstance(value, bytes):
            value = photo_files.to_pixels(value, bgr)
        elif isinstance(value, Pillow.Image):
            value = np.asarray(photo_files.as_rgb(value))
    except UnidentifiedImageError:  # whose text has an address in memory
        return "it is no image file, or damaged at its beginning"
    except photo_files.UNREADABLE as error:
        return str(error) or type(error).__name__
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.ndim != 3 or value.shape[2] != 3:
        what = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        return f"the source gives {what} instead of an image: bytes, a PIL image, or pixels, uint8 (H, W, 3)"
    return value if value.size else "it has no pixels"


def _check_choice(name: str, value: str, choices: list[str]) -> None:
    if value in choices:
        return
    if "." not in str(value):
        raise UserError(f"`{name}`={value!r} is not one of {', '.join(choices)}", "give one of these")
    MODES.get(value)  # a mode of another package, by its dotted name


def _check_number(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise UserError(f"`{name}`={value!r} is not from {low} to {high}", "give a number between these")


FIELD = Image
