"""Speed is not paid for with quality: crops against the same crop and filter in float64, beside FFCV's own."""

import io

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from loading import area_weights, turbo_decode
from PIL import Image

from pipelines import kernels
from pipelines.beton import BLOCKS, JPEG, RAW
from pipelines.sources.generated import open_source

AREA = 2
SAMPLINGS = {
    "444": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "422": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "440": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    "420": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "411": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
}


def psnr(image, reference):
    """Decibels; 99 where the two are the same."""
    return 10 * np.log10(255**2 / max(np.mean((image - reference) ** 2), 1e-6))


def reference(photo, box, size):
    """A box of a photo resized by area in float64."""
    top, left, height, width = box
    rows, columns = area_weights(height, size[0]), area_weights(width, size[1])
    return np.einsum(
        "yr,rxc,zx->yzc", rows, photo[top : top + height, left : left + width].astype(float), columns, optimize=True
    )


def cut(payload, mode, photo, box, size):
    return kernels.cut(payload, mode, photo.shape[:2], box, (*size, 0, 0, AREA), size)


def encoded(photo, *parameters):
    return cv2.imencode(".jpg", photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90, *parameters])[1].reshape(-1)


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
    source = open_source(None, "train", count=6)
    return [np.asarray(Image.open(io.BytesIO(source.read(i))).convert("RGB")) for i in range(6)]


@pytest.mark.parametrize("side", [224, 160, 96, 17])
def test_from_raw_at_least_45_db(photos, side):
    found = [
        psnr(cut(photo.reshape(-1), RAW, photo, box, (side, side)), reference(photo, box, (side, side)))
        for photo in photos
        for box in boxes(photo, 5)
    ]
    assert min(found) > 50


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("side", [224, 32])
def test_from_jpeg_no_worse_than_ffcv(photos, sampling, side):
    size, ours, ffcvs = (side, side), [], []
    for photo in photos:
        payload = encoded(photo, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLINGS[sampling])
        exact, fast = (turbo_decode(payload, *photo.shape[:2], fast=fast) for fast in (False, True))
        for box in boxes(photo, 5):
            top, left, height, width = box
            expected = reference(exact, box, size)
            part = np.ascontiguousarray(fast[top : top + height, left : left + width])
            ours.append(psnr(cut(payload, JPEG, photo, box, size), expected))
            ffcvs.append(psnr(cv2.resize(part, size, interpolation=cv2.INTER_AREA), expected))
    assert np.mean(ours) >= np.mean(ffcvs) and min(ours) >= min(ffcvs)


def test_large_photos_decoded_at_a_half_are_as_good():
    source = open_source(None, "train", count=2)
    for i in range(2):
        photo = np.asarray(Image.open(io.BytesIO(source.read(i))).convert("RGB"))
        photo = cv2.resize(photo, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
        payload = encoded(photo)
        exact, fast = (turbo_decode(payload, *photo.shape[:2], fast=fast) for fast in (False, True))
        for box in boxes(photo, 6):
            top, left, height, width = box
            size = (height // 17, width // 17)
            expected = reference(exact, box, size)
            part = np.ascontiguousarray(fast[top : top + height, left : left + width])
            theirs = psnr(cv2.resize(part, size[::-1], interpolation=cv2.INTER_AREA), expected)
            assert psnr(cut(payload, JPEG, photo, box, size), expected) >= min(theirs, 45)


def test_from_blocks_no_worse_than_from_jpeg(photos):
    found = {BLOCKS: [], JPEG: []}
    for photo in photos:
        photo = cv2.resize(photo, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
        for mode, payload in ((BLOCKS, kernels.encode_blocks(photo)), (JPEG, encoded(photo))):
            for box in boxes(photo, 3):
                found[mode].append(psnr(cut(payload, mode, photo, box, (224, 224)), reference(photo, box, (224, 224))))
    assert np.mean(found[BLOCKS]) > np.mean(found[JPEG])


sides = st.one_of(st.integers(1, 9), st.integers(1, 70))


@settings(max_examples=150, deadline=None)
@given(sides, sides, sides, sides, sides, sides, st.sampled_from([*SAMPLINGS, "gray"]), st.integers(0, 2**32))
@example(1, 1, 1, 1, 1, 1, "420", 0)
@example(2, 2, 1, 1, 70, 70, "411", 0)
@example(17, 1, 1, 1, 3, 3, "440", 1)
def test_any_jpeg_any_box_any_size(height, width, h, w, rows, columns, sampling, seed):
    rng = np.random.default_rng(seed)
    # No colours near those that RGB does not have: libjpeg cuts them off before the resize, the kernels after it
    small = rng.integers(90, 166, (height // 6 + 2, width // 6 + 2, 3), np.uint8)
    photo = np.ascontiguousarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))
    if sampling == "gray":
        payload = cv2.imencode(".jpg", photo[..., 0])[1].reshape(-1)
    else:
        payload = encoded(photo, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLINGS[sampling])
    exact = turbo_decode(payload, height, width)
    h, w = min(h, height), min(w, width)
    box = (int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w)
    difference = np.abs(cut(payload, JPEG, photo, box, (rows, columns)) - reference(exact, box, (rows, columns)))
    assert difference.max() < 4
