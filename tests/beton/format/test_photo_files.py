"""Photo files become Pillow's pixels, by the kernels where they can; other stored JPEGs are decoded by Pillow."""

import io
import itertools

import cv2
import numpy as np
import pytest
from PIL import Image

from beton import kernels
from beton.format.photo_files import decode_whole, to_pixels, to_rgb

SAMPLINGS = {name: getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{name}") for name in ("444", "422", "440", "420", "411")}
SIZES = [(1, 1), (1, 2), (2, 1), (3, 5), (7, 9), (8, 8), (15, 17), (33, 31), (64, 97)]


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)), np.ones((8, 8, 1)))
    return (coarse[:height, :width] + rng.normal(0, 20, (height, width, 3))).clip(0, 255).astype(np.uint8)


def encode(pixels: np.ndarray, sampling: str = "420", quality: int = 90, restart: int = 0, **more: int) -> bytes:
    how = {"QUALITY": quality, "RST_INTERVAL": restart, "SAMPLING_FACTOR": SAMPLINGS[sampling], **more}
    flags = [n for name, value in how.items() for n in (getattr(cv2, f"IMWRITE_JPEG_{name}"), value)]
    return cv2.imencode(".jpg", pixels, flags)[1].tobytes()


def saved(pixels: np.ndarray, mode: str | None = None, **how) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels, mode).save(file, "JPEG", **how)
    return file.getvalue()


def assert_same(data: bytes) -> bool:
    """to_pixels does what to_rgb does; whether that gave pixels."""
    try:
        expected = np.asarray(to_rgb(data))
    except Exception as error:  # noqa: BLE001
        with pytest.raises(type(error)):
            to_pixels(data)
        return False
    np.testing.assert_array_equal(to_pixels(data), expected)
    np.testing.assert_array_equal(to_pixels(data, bgr=True), expected[..., ::-1])
    return True


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_kernels_give_pillows_pixels(sampling):
    for quality, size, restart in itertools.product((5, 75, 100), SIZES, (0, 1, 5)):
        data = encode(photo(*size), sampling, quality, restart)
        assert kernels.decode_jpeg(data, *size) is not None
        assert assert_same(data)


def test_other_kinds_are_left_to_pillow():
    pixels = photo(40, 50)
    for data in (encode(pixels, PROGRESSIVE=1), encode(pixels[..., 0])):
        assert kernels.decode_jpeg(data, 40, 50) is None
        assert assert_same(data)
    assert assert_same(saved(pixels, keep_rgb=True))  # RGB, from Pillow 10.2 on


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_damaged_files_become_what_pillow_makes_of_them(sampling, capfd):
    rng, decoded = np.random.default_rng(0), 0
    for restart in (0, 3):
        good = encode(photo(120, 150), sampling, restart=restart)
        for i in range(150):
            damaged = bytearray(good)
            for at in rng.integers(2 if i % 2 else good.index(b"\xff\xda"), len(good), 1 + i % 3):
                damaged[at] = rng.integers(256)
            decoded += assert_same(bytes(damaged))
        for size in (*range(len(good) - 5, len(good)), *rng.integers(0, len(good), 20)):
            assert_same(good[:size])
    assert decoded > 100
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "data",
    [
        encode(photo(61, 50), PROGRESSIVE=1),
        encode(photo(61, 50)[..., 0], PROGRESSIVE=1),
        encode(photo(61, 50)),
        saved(photo(61, 50), keep_rgb=True),
        saved(np.dstack([photo(61, 50), photo(61, 50)[..., :1]]), "CMYK"),
    ],
    ids=["progressive", "progressive grey", "baseline", "rgb", "cmyk"],
)
def test_any_stored_jpeg_is_decoded_whole(data):
    np.testing.assert_array_equal(decode_whole(np.frombuffer(data, np.uint8), 61, 50), np.asarray(to_rgb(data)))


def test_what_is_wrong_with_a_stored_jpeg():
    good = encode(photo(61, 50), PROGRESSIVE=1)
    for data, why in (
        (b"\x89PNG" + good[4:], kernels.CODES[1]),
        (b"", kernels.CODES[1]),
        (good[:5], kernels.CODES[3]),
        (good[: len(good) // 2], kernels.CODES[3]),
        (good[:-2] + b"\xff\xda" * 501 + good[-2:], kernels.CODES[3]),
    ):
        with pytest.raises(ValueError, match=why):
            decode_whole(data, 61, 50)
    with pytest.raises(ValueError, match=kernels.CODES[2]):
        decode_whole(good, 50, 61)
