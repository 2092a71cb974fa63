"""write_mode=blocks: the kernels decode what the format says, and encode what is close to the photo."""

import functools

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.kernels import DAMAGED, GOOD, NO_BLOCKS, VARIANTS, YCC
from tests.support.photos import generated_photos
from tests.support.statistics import psnr

FACTORS = [0] + [round(65536 / (2**depth - 1)) for depth in range(1, 9)]
SIZES = [(1, 1), (1, 2), (2, 1), (3, 5), (4, 8), (5, 9), (8, 16), (16, 128), (17, 131), (61, 67), (64, 129)]


def decoded(kernels, payload, height, width, part=None):
    """The code, and (samples, top, left) of each plane."""
    code, picture = kernels.decode_blocks(payload, (height, width), part)
    if code:
        return code, None
    assert (picture.kind, picture.shrink) == (YCC, 0)
    for i, plane in enumerate(picture.planes):
        full = plane_sizes(height, width)[i]
        assert (plane.tall, plane.wide) == ((2, 2) if i else (1, 1))
        assert (plane.full_height, plane.full_width) == full
        assert 0 <= plane.top < plane.top + plane.height <= full[0]
        assert 0 <= plane.left < plane.left + plane.width <= full[1]
    return code, [(plane.samples, plane.top, plane.left) for plane in picture.planes]


@pytest.fixture(scope="module")
def photos():
    # Smaller: they have been JPEGs of quality 90 already, and would be once more without any loss
    return [cv2.resize(p, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA) for p in generated_photos(8)]


# The format, a second time


def plane_sizes(height, width):
    half = ((height + 1) // 2, (width + 1) // 2)
    return [(height, width), half, half]


def grids(height, width):
    """Rows and columns of blocks of each plane."""
    return [(-(-h // 4), -(-w // 8)) for h, w in plane_sizes(height, width)]


def size_of(height, width):
    return 32 + sum(rows * (4 + (columns + 1) // 2 + 15 * columns) for rows, columns in grids(height, width))


def read_blocks(payload, height, width):
    """For each plane a list of (row, column, depth, lowest, span, indices)."""
    data, entry, planes = payload.tobytes(), 0, []
    for rows, columns in grids(height, width):
        blocks = []
        for row in range(rows):
            start = int.from_bytes(data[4 * entry : 4 * entry + 4], "little")
            entry += 1
            at = start + (columns + 1) // 2
            for column in range(columns):
                depth = data[start + column // 2] >> column % 2 * 4 & 15
                bits = int.from_bytes(data[at + 2 : at + 2 + 4 * depth], "little")
                indices = [bits >> i * depth & (1 << depth) - 1 for i in range(32)]
                blocks.append((row, column, depth, data[at], data[at + 1], indices))
                at += 2 + 4 * depth
        planes.append(blocks)
    return planes


def decode(payload, height, width):
    """The three planes, whole."""
    planes = []
    for blocks, (rows, columns), (h, w) in zip(
        read_blocks(payload, height, width), grids(height, width), plane_sizes(height, width), strict=True
    ):
        plane = np.zeros((rows, columns, 4, 8), np.uint8)
        for row, column, depth, lowest, span, indices in blocks:
            stride = (span * FACTORS[depth] + 128) // 256
            values = [(256 * lowest + index * stride + 128) // 256 % 256 for index in indices]
            plane[row, column] = np.reshape(values, (4, 8))
        planes.append(plane.swapaxes(1, 2).reshape(4 * rows, 8 * columns)[:h, :w])
    return planes


def random_payload(height, width, seed):
    """Any blocks of any depths that fit, the rows of blocks anywhere."""
    random = np.random.default_rng(seed)
    payload = random.integers(0, 256, size_of(height, width), dtype=np.uint8)
    rows = [columns for count, columns in grids(height, width) for _ in range(count)]
    left = 13 * sum(rows) // 4  # depths to give away
    at = 4 * len(rows)
    for row in random.permutation(len(rows)):
        depths = []
        for _ in range(rows[row]):
            depths.append(min(int(random.integers(0, 9)), left))
            left -= depths[-1]
        payload[4 * row : 4 * row + 4] = np.frombuffer(at.to_bytes(4, "little"), np.uint8)
        padded = np.array(depths + [0] * (len(depths) % 2), np.uint8)
        payload[at : at + len(padded) // 2] = padded[::2] | padded[1::2] << 4
        at += len(padded) // 2 + 2 * len(depths) + 4 * sum(depths)
    return payload


def to_planes(rgb):
    """JPEG's YCbCr with the mean of 2 x 2 pixels as colour, in float."""
    red, green, blue = np.moveaxis(rgb.astype(float), 2, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = [luma]
    for channel, most in ((blue, 1.772), (red, 1.402)):
        h, w = luma.shape
        full = np.pad((channel - luma) / most + 128, ((0, h % 2), (0, w % 2)), "edge")
        planes.append(full.reshape((h + 1) // 2, 2, -1, 2).mean((1, 3)))
    return [np.clip(np.rint(plane), 0, 255) for plane in planes]


def to_rgb(planes):
    """Interpolate the colour with 3/4 and 1/4, as libjpeg does."""
    luma = planes[0].astype(float)
    blue, red = (upsample(plane - 128.0, *luma.shape) for plane in planes[1:])
    rgb = [luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue]
    return np.clip(np.rint(np.stack(rgb, 2)), 0, 255)


def upsample(plane, height, width):
    for axis in (0, 1):
        padded = np.pad(plane, [(1, 1) if axis == a else (0, 0) for a in (0, 1)], "edge")
        near = plane * 0.75
        first, second = (np.take(padded, np.arange(plane.shape[axis]) + k, axis) * 0.25 for k in (0, 2))
        shape = [side * (2 if axis == a else 1) for a, side in enumerate(plane.shape)]
        plane = np.stack([near + first, near + second], axis + 1).reshape(shape)
    return plane[:height, :width]


# Decoding


@pytest.mark.parametrize("height,width", SIZES)
def test_decoder_agrees_with_the_format(kernels, height, width):
    assert kernels.lib.size_of(height, width) == size_of(height, width)
    payload = random_payload(height, width, seed=height * 1000 + width)
    expected = decode(payload, height, width)
    code, planes = decoded(kernels, payload, height, width)
    assert code == GOOD
    for (samples, top, left), plane in zip(planes, expected, strict=True):
        assert (top, left) == (0, 0)
        np.testing.assert_array_equal(samples, plane)


@functools.cache
def payload_and_planes(height, width):
    payload = random_payload(height, width, seed=height + width)
    return payload, decode(payload, height, width)


@given(data=st.data(), size=st.sampled_from(SIZES))
@settings(max_examples=150)
def test_parts(variants, data, size):
    """Whichever part is decoded, its samples and one of colour around them are those of the whole."""
    height, width = size
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    rows, columns = data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))
    check_part(variants["fast"], size, (top, left, rows, columns))


@pytest.mark.parametrize("size", SIZES)
def test_parts_at_edges_and_corners(kernels, size):
    height, width = size
    for top in {0, height // 2, height - 1}:
        for left in {0, width // 2, width - 1}:
            for bottom in {top + 1, height}:
                for right in {left + 1, width}:
                    check_part(kernels, size, (top, left, bottom - top, right - left))


def check_part(kernels, size, part):
    payload, expected = payload_and_planes(*size)
    code, planes = decoded(kernels, payload, *size, part)
    assert code == GOOD
    for i, ((samples, top, left), plane) in enumerate(zip(planes, expected, strict=True)):
        np.testing.assert_array_equal(samples, plane[top:, left:][: samples.shape[0], : samples.shape[1]])
        for axis, (first, count) in enumerate(((top, samples.shape[0]), (left, samples.shape[1]))):
            start, end = part[axis], part[axis] + part[axis + 2]
            if i:
                start, end = max(0, start // 2 - 1), min(plane.shape[axis], (end + 1) // 2 + 1)
            assert first <= start and first + count >= end
            assert start - first < 8 and first + count - end < 8, "blocks that nobody asked for"


def test_wrong_sizes(kernels):
    for height, width in SIZES:
        payload = random_payload(height, width, 0)
        for bad in (payload[:-1], np.append(payload, payload[:1]), payload[:0]):
            assert decoded(kernels, bad, height, width)[0] == NO_BLOCKS
    for height, width in ((0, 5), (5, 0), (-1, -1), (2**62, 2**62), (2**20, 2**20)):
        assert decoded(kernels, payload, height, width, (0, 0, 1, 1))[0] == NO_BLOCKS


@given(seed=st.integers(0, 2**32), size=st.sampled_from(SIZES), damage=st.integers(1, 1000))
@example(seed=0, size=(61, 67), damage=10**6)
@settings(max_examples=150)
def test_damaged_payloads(variants, seed, size, damage):
    """Any bytes are decoded, by all variants alike, or refused."""
    random = np.random.default_rng(seed)
    payload = random_payload(*size, seed)
    where = random.integers(0, payload.size, min(damage, 3 * payload.size))
    payload[where] = random.integers(0, 256, where.size, dtype=np.uint8)
    results = [decoded(variants[name], payload.copy(), *size) for name in VARIANTS]
    assert results[0][0] == results[1][0] and results[0][0] in (GOOD, DAMAGED)
    if results[0][0] == GOOD:
        for (fast, *_), (plain, *_) in zip(results[0][1], results[1][1], strict=True):
            np.testing.assert_array_equal(fast, plain)


def test_rows_and_depths_beyond_the_payload_are_damage(kernels):
    payload = random_payload(61, 67, 1)
    start = int.from_bytes(payload[:4].tobytes(), "little")
    deep, beyond, late = payload.copy(), payload.copy(), payload.copy()
    deep[start] = 9
    beyond[3] = 255
    late[:4] = np.frombuffer((payload.size - 40).to_bytes(4, "little"), np.uint8)
    for bad in (deep, beyond, late):
        assert decoded(kernels, bad, 61, 67)[0] == DAMAGED


# Encoding


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (13, 200, 77)])
def test_constant_photos(kernels, colour):
    for height, width in SIZES:
        rgb = np.tile(np.uint8(colour), (height, width, 1))
        code, planes = decoded(kernels, kernels.encode_blocks(rgb), height, width)
        assert code == GOOD
        for (samples, *_), plane in zip(planes, to_planes(rgb), strict=True):
            assert abs(samples - plane).max() <= 1


def test_two_values_are_exact(kernels):
    """Black and white; and pairs of grays that differ from block to block, but for those too close to get a bit."""
    random = np.random.default_rng(0)
    pair = random.integers(0, 256, (2, 16, 12, 1, 1), dtype=np.uint8)
    pick = random.integers(0, 2, (16, 12, 4, 8), dtype=bool)
    gray = np.where(pick, pair[0], pair[1]).swapaxes(1, 2).reshape(64, 96)
    for plane in (gray, np.where(gray > 127, 255, 0).astype(np.uint8)):
        payload = kernels.encode_blocks(np.dstack([plane] * 3))
        _, planes = decoded(kernels, payload, 64, 96)
        for row, column, depth, *_ in read_blocks(payload, 64, 96)[0]:
            block = np.s_[4 * row : 4 * row + 4, 8 * column : 8 * column + 8]
            assert depth > 0 or np.ptp(plane[block]) < 10
            if depth > 0:
                np.testing.assert_array_equal(planes[0][0][block], plane[block])


def test_few_values_are_exact(kernels):
    """A photo of smooth blocks has bits for all of them: nothing is lost but colour resolution."""
    y, x = np.mgrid[:60, :100]
    gray = np.uint8(x + y)
    _, planes = decoded(kernels, kernels.encode_blocks(np.dstack([gray] * 3)), 60, 100)
    np.testing.assert_array_equal(planes[0][0], gray)


def test_sizes_and_padding(kernels):
    """Whatever the size: the samples are near the photo's, and beyond the edge it is repeated."""
    random = np.random.default_rng(0)
    for height, width in SIZES:
        small = random.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
        rgb = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
        payload = kernels.encode_blocks(rgb)
        _, planes = decoded(kernels, payload, height, width)
        for (samples, *_), plane in zip(planes, to_planes(rgb), strict=True):
            assert samples.shape == plane.shape
            assert np.mean((samples - plane) ** 2) < 40
        wide, high = -width % 16, -height % 8
        if width % 2 == height % 2 == 0 and grids(height, width) == grids(height + high, width + wide):
            padded = kernels.encode_blocks(np.pad(rgb, ((0, high), (0, wide), (0, 0)), "edge"))
            np.testing.assert_array_equal(padded, payload)


def test_encoder_is_deterministic(variants, photos):
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (61, 67, 3), dtype=np.uint8)
    for rgb in [noise, noise[:1, :1], *photos[:3]]:
        payloads = [variants[name].encode_blocks(rgb) for name in ("fast", "plain", "fast")]
        np.testing.assert_array_equal(payloads[0], payloads[1])
        np.testing.assert_array_equal(payloads[0], payloads[2])


def naive_errors(plane, blocks):
    """Squared errors of blocks with indices from the least to the greatest value, and of the blocks stored."""
    rows, columns = -(-plane.shape[0] // 4), -(-plane.shape[1] // 8)
    padded = np.pad(plane, ((0, 4 * rows - plane.shape[0]), (0, 8 * columns - plane.shape[1])), "edge")
    for row, column, depth, lowest, span, indices in blocks:
        values = padded[4 * row :, 8 * column :][:4, :8].ravel()
        last, low, width = 2**depth - 1, values.min(), np.ptp(values)
        nearest = np.rint((values - low) * last / max(width, 1))
        naive = np.rint(low + nearest * width / max(last, 1)) if depth else np.rint(values.mean())
        stride = (span * FACTORS[depth] + 128) // 256
        stored = (256 * lowest + np.array(indices) * stride + 128) // 256
        yield np.sum((naive - values) ** 2), np.sum((stored - values) ** 2)


def test_encoder_is_not_worse_than_least_and_greatest(variants, photos):
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (61, 67, 3), dtype=np.uint8)
    for rgb in [noise, photos[0][:64, :64], photos[1][10:73, 5:66]]:
        payload = variants["fast"].encode_blocks(rgb)
        planes = to_planes(rgb)
        for plane, blocks in zip(planes, read_blocks(payload, *rgb.shape[:2]), strict=True):
            naive, stored = np.array(list(naive_errors(plane, blocks))).T
            assert stored.sum() <= naive.sum()
            assert (stored <= 1.2 * naive + 16).all(), "more than rounding"


def test_better_than_jpeg(variants, photos):
    """Compared with a JPEG of quality 90, as is and at half the size."""
    for rgb in photos:
        height, width = rgb.shape[:2]
        payload = variants["fast"].encode_blocks(rgb)
        assert payload.size < 0.81 * height * width
        ours = to_rgb([samples for samples, *_ in decoded(variants["fast"], payload, height, width)[1]])
        _, jpeg = cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
        theirs = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[:, :, ::-1]
        assert psnr(ours, rgb) >= psnr(theirs, rgb)
        small = [half(image) for image in (ours, theirs, rgb)]
        assert psnr(small[0], small[2]) >= psnr(small[1], small[2])


def half(image):
    return cv2.resize(image.astype(np.float32), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
