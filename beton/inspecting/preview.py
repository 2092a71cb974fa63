"""A contact sheet of a .beton: some of its samples, pictures with their classes or what else they are, as PNG."""

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from beton.errors import DamagedSample, UserError
from beton.files import partial_path
from beton.format.fields.array import Array
from beton.format.fields.image import Image as ImageField
from beton.format.file import BetonFile
from beton.format.joined import open_beton

_MOST, _COLUMNS, _TILE, _TEXT = 64, 8, 128, 18


def preview(path: str, out: str | None) -> tuple[Path, int]:
    """Draw at most 64 samples, evenly spread over the file; returns the path of the PNG, and their number.

    A sample is drawn as its first picture, an image or else an array of that shape; without one its values are written.
    """
    target = Path(out) if out else Path(f"{Path(path).name}.png")
    if target.suffix.lower() != ".png":
        raise UserError(f"{target} is not the name of a PNG", "give one that ends with .png")
    with open_beton(path) as file:
        name = _picture(file)
        samples = np.linspace(0, len(file) - 1, min(_MOST, len(file))).round().astype(int).tolist()
        rows, columns = -(-len(samples) // _COLUMNS), min(len(samples), _COLUMNS)
        sheet = Image.new("RGB", (columns * _TILE, rows * (_TILE + _TEXT)), "white")
        for number, sample in enumerate(samples):
            row, column = divmod(number, _COLUMNS)
            sheet.paste(_tile(file, sample, name), (column * _TILE, row * (_TILE + _TEXT)))
    aside = partial_path(target)
    try:
        sheet.save(aside, "PNG")
        os.replace(aside, target)
    except OSError as error:
        raise UserError(f"cannot write {target} ({error.strerror or error})", "give another name") from None
    return target, len(samples)


def _picture(file: BetonFile) -> str | None:
    """The field that is drawn: the first image, else the first array that could be one."""
    columns = file.columns.items()
    images = [name for name, column in columns if isinstance(column.field, ImageField)]
    arrays = [name for name, column in columns if isinstance(column.field, Array) and _is_drawn(column.field)]
    return next(iter(images + arrays), None)


def _is_drawn(field: Array) -> bool:
    return field.stored_dtype.kind in "buif" and (len(field.shape) == 2 or (len(field.shape) == 3 and field.shape[2]))


def as_image(pixels: np.ndarray) -> Image.Image:
    """Pixels (uint8, H x W x 3), or an array of numbers: its first channels, from their least to their largest."""
    if pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3:
        return Image.fromarray(pixels)
    planes = np.nan_to_num(pixels.reshape(*pixels.shape[:2], -1)[..., :3].astype(np.float32))
    planes = planes if planes.shape[2] == 3 else planes[..., :1].repeat(3, axis=2)
    if not planes.size:
        return Image.new("RGB", (1, 1), "white")
    low, high = planes.min(), planes.max()
    return Image.fromarray(((planes - low) * (255 / max(high - low, 1e-30))).astype(np.uint8))


def _lines(file: BetonFile, sample: int, payloads: dict[str, bytes]) -> str:
    """The values of a sample, a line each."""
    values = {name: file.value(sample, name, payloads.get(name)) for name in file.columns}
    return "\n".join(" ".join(f"{name}: {str(value)[:40]}".split())[:20] for name, value in list(values.items())[:8])


def _tile(file: BetonFile, sample: int, name: str | None) -> Image.Image:
    """A picture, or the values, with the name of the class below; or the word damaged."""
    tile = Image.new("RGB", (_TILE, _TILE + _TEXT), "white")
    draw, font = ImageDraw.Draw(tile), ImageFont.load_default(12)
    try:
        payloads = file.verified(sample)
        if name is None:
            draw.text((4, 4), _lines(file, sample, payloads), "black", font)
        else:
            photo = as_image(file.value(sample, name, payloads[name]))
            photo.thumbnail((_TILE - 4, _TILE - 4))
            tile.paste(photo, ((_TILE - photo.width) // 2, (_TILE - photo.height) // 2))
    except DamagedSample:
        draw.rectangle((2, 2, _TILE - 3, _TILE - 3), "lightgray", "red", 2)
        draw.text((_TILE / 2, _TILE / 2), f"sample {sample}\nis damaged", "red", font, "mm", align="center")
    text = file.class_of(sample)
    while text and draw.textlength(text, font) > _TILE - 4:
        text = text[: text.rfind("…") - 1 if text.endswith("…") else -1] + "…"
    draw.text((_TILE / 2, _TILE + _TEXT / 2), text, "black", font, "mm")
    return tile
