"""A contact sheet of a .beton: some of its photos with their classes, as PNG."""

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from beton.errors import DamagedSample, UserError
from beton.files import partial_path
from beton.format.fields.image import Image as ImageField
from beton.format.file import BetonFile
from beton.format.joined import open_beton

_MOST, _COLUMNS, _TILE, _TEXT = 64, 8, 128, 18


def preview(path: str, out: str | None) -> tuple[Path, int]:
    """Draw at most 64 photos, evenly spread over the file; returns the path of the PNG, and their number."""
    target = Path(out) if out else Path(f"{Path(path).name}.png")
    if target.suffix.lower() != ".png":
        raise UserError(f"{target} is not the name of a PNG", "give one that ends with .png")
    with open_beton(path) as file:
        name = next((name for name, column in file.columns.items() if isinstance(column.field, ImageField)), None)
        if name is None:
            raise UserError(f"{path} has no image field", "preview a file that has one")
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


def _tile(file: BetonFile, sample: int, name: str) -> Image.Image:
    """A photo with the name of its class below, or the word damaged."""
    tile = Image.new("RGB", (_TILE, _TILE + _TEXT), "white")
    draw, font = ImageDraw.Draw(tile), ImageFont.load_default(12)
    try:
        photo = Image.fromarray(file.value(sample, name, file.verified(sample)[name]))
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
