"""Speed is not paid for with quality: crops against the same crop and filter in float64, beside FFCV's own."""

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beton import kernels
from tests.support import turbo
from tests.support.betons import BLOCKS, JPEG, RAW
from tests.support.jpegs import SAMPLINGS, encode
from tests.support.photos import generated_photos
from tests.support.statistics import psnr
from tests.support.statistics import resized_by_area as reference

AREA = 2


def crop(payload, mode, photo, box, size):
    return kernels.crop(np.frombuffer(payload, np.uint8), mode, photo.shape[:2], box, (*size, 0, 0, AREA), size)


def boxes(photo, count, seed=0):
    """Random boxes; the first ones lie in the corners."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        high, wide = (max(1, int(side * rng.uniform(0.3, 1))) for side in photo.shape[:2])
        top, left = (rng.integers(0, side - part + 1) for side, part in zip(photo.shape, (high, wide), strict=False))
        if i < 4:
            top, left = (photo.shape[0] - high) * (i % 2), (photo.shape[1] - wide) * (i // 2)
        yield int(top), int(left), high, wide


@pytest.fixture(scope="module")
def photos():
    return generated_photos(6)


def decoded(payload, photo):
    """The whole photo: exactly, and as FFCV does."""
    return [turbo.decode(payload, *photo.shape[:2], flags) for flags in (turbo.ACCURATE, turbo.FAST)]


def as_ffcv(fast, box, size):
    """The crop by FFCV's way."""
    top, left, height, width = box
    part = np.ascontiguousarray(fast[top : top + height, left : left + width])
    return cv2.resize(part, size[::-1], interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("side", [224, 160, 96, 17])
def test_from_raw_at_least_45_db(photos, side):
    found = [
        psnr(crop(photo.reshape(-1), RAW, photo, box, (side, side)), reference(photo, box, (side, side)))
        for photo in photos
        for box in boxes(photo, 5)
    ]
    assert min(found) > 50


@pytest.mark.parametrize("sampling", [name for name in SAMPLINGS if name != "grey"])
@pytest.mark.parametrize("side", [224, 32])
def test_from_jpeg_no_worse_than_ffcv(photos, sampling, side):
    size, ours, ffcvs = (side, side), [], []
    for photo in photos:
        payload = encode(photo, sampling)
        exact, fast = decoded(payload, photo)
        for box in boxes(photo, 5):
            expected = reference(exact, box, size)
            ours.append(psnr(crop(payload, JPEG, photo, box, size), expected))
            ffcvs.append(psnr(as_ffcv(fast, box, size), expected))
    assert np.mean(ours) >= np.mean(ffcvs) and min(ours) >= min(ffcvs)


def test_large_photos_decoded_at_a_half_are_as_good():
    for photo in generated_photos(2):
        photo = cv2.resize(photo, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
        payload = encode(photo)
        exact, fast = decoded(payload, photo)
        for box in boxes(photo, 6):
            size = (box[2] // 17, box[3] // 17)
            expected = reference(exact, box, size)
            theirs = psnr(as_ffcv(fast, box, size), expected)
            assert psnr(crop(payload, JPEG, photo, box, size), expected) >= min(theirs, 45)


def test_from_blocks_no_worse_than_from_jpeg(photos):
    found = {BLOCKS: [], JPEG: []}
    for photo in photos:
        photo = cv2.resize(photo, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
        for mode, payload in ((BLOCKS, kernels.encode_blocks(photo)), (JPEG, encode(photo))):
            for box in boxes(photo, 3):
                found[mode].append(psnr(crop(payload, mode, photo, box, (224, 224)), reference(photo, box, (224, 224))))
    assert np.mean(found[BLOCKS]) > np.mean(found[JPEG])


sides = st.one_of(st.integers(1, 9), st.integers(1, 70))


@settings(max_examples=150)
@given(sides, sides, sides, sides, sides, sides, st.sampled_from(list(SAMPLINGS)), st.integers(0, 2**32))
@example(1, 1, 1, 1, 1, 1, "420", 0)
@example(2, 2, 1, 1, 70, 70, "411", 0)
@example(17, 1, 1, 1, 3, 3, "440", 1)
def test_any_jpeg_any_box_any_size(height, width, h, w, rows, columns, sampling, seed):
    rng = np.random.default_rng(seed)
    # No colours near those that RGB does not have: libjpeg cuts them off before the resize, the kernels after it
    small = rng.integers(90, 166, (height // 6 + 2, width // 6 + 2, 3), np.uint8)
    photo = np.ascontiguousarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))
    payload = encode(photo, sampling)
    exact = turbo.decode(payload, height, width)
    h, w = min(h, height), min(w, width)
    box = (int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w)
    difference = np.abs(crop(payload, JPEG, photo, box, (rows, columns)) - reference(exact, box, (rows, columns)))
    assert difference.max() < 4
