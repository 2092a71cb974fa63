"""Photos of every common kind become RGB; what the pixels must be is computed from the arrays they are made of."""

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.support.betons import stored_photos, write_good
from tests.support.photos import draw

COLOUR = draw(1, 24, 31)
GREY = COLOUR[..., 0]
ALPHA = draw(2, 24, 31)[..., 1]
DEEP = np.random.default_rng(0).integers(0, 65536, (24, 31), dtype=np.uint16)
PALETTE = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)
INK = np.broadcast_to(np.array([200, 30, 90, 40], np.uint8), (24, 31, 4))


def grey3(values):
    return np.stack([values] * 3, -1)


def palette_image():
    image = Image.frombytes("P", (31, 24), GREY.tobytes())
    image.putpalette(PALETTE.tobytes())
    return image


def with_orientation(image, path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    image.save(path, exif=exif)


# file name -> (how it is saved, the pixels that it must give, by how much they may differ)
UNINKED = np.rint((255.0 - INK[..., :3]) * (255.0 - INK[..., 3:]) / 255).astype(np.uint8)
KINDS = {
    "rgb.png": (Image.fromarray(COLOUR).save, COLOUR, 0),
    "rgb.bmp": (Image.fromarray(COLOUR).save, COLOUR, 0),
    "rgb.ppm": (Image.fromarray(COLOUR).save, COLOUR, 0),
    "rgb.webp": (lambda path: Image.fromarray(COLOUR).save(path, lossless=True), COLOUR, 0),
    "grey.png": (Image.fromarray(GREY).save, grey3(GREY), 0),
    "grey.tif": (Image.fromarray(GREY).save, grey3(GREY), 0),
    "palette.png": (lambda path: palette_image().save(path), PALETTE[GREY], 0),
    "palette.tif": (lambda path: palette_image().save(path), PALETTE[GREY], 0),
    "palette_transparent.png": (lambda path: palette_image().save(path, transparency=7), PALETTE[GREY], 0),
    "palette_alphas.png": (lambda path: palette_image().save(path, transparency=bytes(256)), PALETTE[GREY], 0),
    "la.png": (Image.fromarray(np.dstack([GREY, ALPHA])).save, grey3(GREY), 0),
    "rgba.png": (Image.fromarray(np.dstack([COLOUR, ALPHA])).save, COLOUR, 0),
    "cmyk.tif": (Image.fromarray(INK, "CMYK").save, UNINKED, 1),
    "cmyk.jpg": (lambda path: Image.fromarray(INK, "CMYK").save(path, quality=100), UNINKED, 3),
    "one_bit.png": (Image.fromarray(GREY > 100).save, grey3((GREY > 100) * np.uint8(255)), 0),
    "grey16.png": (Image.fromarray(DEEP).save, grey3((DEEP >> 8).astype(np.uint8)), 0),
    "grey16.tif": (Image.fromarray(DEEP).save, grey3((DEEP >> 8).astype(np.uint8)), 0),
    "grey16_big_endian.tif": (
        lambda path: Image.frombytes("I;16B", (31, 24), DEEP.astype(">u2").tobytes()).save(path),
        grey3((DEEP >> 8).astype(np.uint8)),
        0,
    ),
    "rgb16.png": (
        lambda path: cv2.imwrite(str(path), np.dstack([DEEP, DEEP.T.reshape(DEEP.shape), 65535 - DEEP])),
        np.dstack([65535 - DEEP, DEEP.T.reshape(DEEP.shape), DEEP]) >> 8,
        0,
    ),
    "grey16.pgm": (lambda path: cv2.imwrite(str(path), DEEP), grey3((DEEP >> 8).astype(np.uint8)), 0),
    "progressive.jpg": (lambda path: Image.fromarray(COLOUR).save(path, progressive=True, quality=95), None, 2),
    "grey.jpg": (lambda path: Image.fromarray(GREY).save(path), None, 2),
    "turned.jpg": (lambda path: with_orientation(Image.fromarray(COLOUR), path), None, 2),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """One write of a photo of each kind, each in a class of its own: file name -> (source, stored pixels)."""
    folder = tmp_path_factory.mktemp("kinds")
    for name, (save, _, _) in KINDS.items():
        (folder / "photos" / name).mkdir(parents=True)
        save(folder / "photos" / name / name)
    photos = stored_photos(write_good(folder / "kinds.beton", folder / "photos", write_mode="raw"))
    return {name: (folder / "photos" / name / name, photo) for name, photo in zip(sorted(KINDS), photos, strict=True)}


@pytest.mark.parametrize("name", KINDS)
def test_becomes_rgb_with_the_right_values(written, name):
    path, stored = written[name]
    _, expected, most = KINDS[name]
    if expected is None:  # another decoder's opinion, the orientation in the EXIF data left alone
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        expected = cv2.cvtColor(cv2.imread(str(path), flags), cv2.COLOR_BGR2RGB)
    assert stored.shape == (24, 31, 3)
    assert np.abs(stored.astype(int) - expected).max() <= most
