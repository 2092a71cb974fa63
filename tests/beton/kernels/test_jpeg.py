"""The JPEG decoder of the kernels against libjpeg-turbo: every sampling, every part, whole and reduced, damaged."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beton.format.photo_files import decode_whole
from tests.support import turbo
from tests.support.jpegs import SAMPLINGS, encode, noisy, pillow, with_marker, without
from tests.support.kernels import DAMAGED, DECODE_WHOLE, GOOD, GRAY, NO_JPEG, OTHER_SIZE, YCC
from tests.support.photos import draw

SIDES = st.one_of(st.integers(1, 20), st.integers(1, 150))
few = settings(max_examples=150, suppress_health_check=list(HealthCheck))


def divide_up(a, b):
    return -(-a // b)


def check_planes(data, size, part, picture, sampling, shrink=0):
    """What the planes must be: where they lie, and (of the whole size) their samples."""
    tall, wide = SAMPLINGS[sampling][0]
    assert picture.kind == (GRAY if sampling == "grey" else YCC)
    assert picture.shrink == shrink
    expected = turbo.planes(data, *size, tall, wide)
    less = int(min(tall, wide) == 2 and shrink > 0)
    for i, plane in enumerate(picture.planes):
        assert (plane.tall, plane.wide) == ((tall >> less, wide >> less) if i else (1, 1))
        for side, axis, cover in [(size[0], 0, plane.tall), (size[1], 1, plane.wide)]:
            full = [plane.full_height, plane.full_width][axis]
            assert full == divide_up(divide_up(side, 2**shrink), cover)
            begin, length = [plane.top, plane.left][axis], [plane.height, plane.width][axis]
            step, margin = cover << shrink, int(i > 0)
            assert 0 <= begin <= max(part[axis] // step - margin, 0)
            end = divide_up(part[axis] + part[axis + 2], step) + margin
            assert min(end, full) <= begin + length <= full
        if shrink == 0:
            there = expected[i][plane.top : plane.top + plane.height, plane.left : plane.left + plane.width]
            np.testing.assert_array_equal(plane.samples, there)


@st.composite
def parts(draw_one, size):
    """A rectangle of pixels (top, left, height, width), often at an edge."""
    spans = []
    for side in size:
        begin = draw_one(st.one_of(st.just(0), st.integers(0, side - 1)))
        length = draw_one(st.one_of(st.just(1), st.just(side - begin), st.integers(1, side - begin)))
        spans.append((begin, length))
    return spans[0][0], spans[1][0], spans[0][1], spans[1][1]


@few
@given(data=st.data(), size=st.tuples(SIDES, SIDES), sampling=st.sampled_from(list(SAMPLINGS)))
def test_every_part_of_every_sampling_is_bit_exact(kernels, data, size, sampling):
    photo = noisy(size, data.draw(st.integers(0, 99)), data.draw(st.sampled_from([0, 20, 80])))
    quality = data.draw(st.sampled_from([1, 30, 75, 90, 97, 100]))
    payload = encode(photo, sampling, quality, data.draw(st.booleans()), data.draw(st.integers(0, 12)))
    for _ in range(3):
        part = data.draw(parts(size))
        code, picture = kernels.decode_jpeg(payload, size, part)
        assert code == GOOD
        check_planes(payload, size, part, picture, sampling)


@pytest.mark.parametrize("sampling", list(SAMPLINGS))
@pytest.mark.parametrize("restart", [0, 1, 3, 4, 7])
def test_every_corner_and_edge(kernels, sampling, restart):
    for size in [(70, 83), (64, 64), (1, 1), (2, 1), (1, 2), (3, 3), (1, 90), (90, 1)]:
        payload = encode(draw(3, *size), sampling, restart=restart)
        for height, width in {(1, 1), (min(17, size[0]), min(17, size[1])), size, (1, size[1]), (size[0], 1)}:
            for top in {0, (size[0] - height) // 2, size[0] - height}:
                for left in {0, (size[1] - width) // 2, size[1] - width}:
                    part = (top, left, height, width)
                    code, picture = kernels.decode_jpeg(payload, size, part)
                    assert code == GOOD
                    check_planes(payload, size, part, picture, sampling)


@few
@given(
    data=st.data(), size=st.tuples(SIDES, SIDES), sampling=st.sampled_from(list(SAMPLINGS)), shrink=st.integers(1, 3)
)
def test_reduced_sizes(kernels, data, size, sampling, shrink):
    payload = encode(noisy(size, 1, 20), sampling, restart=data.draw(st.integers(0, 5)))
    part = data.draw(parts(size))
    code, picture = kernels.decode_jpeg(payload, size, part, shrink)
    assert code == GOOD
    check_planes(payload, size, part, picture, sampling, shrink)
    # The luma is what libjpeg-turbo gives (where no larger size rounds to the same: it takes the largest)
    eighths = 8 >> shrink
    if any(divide_up(side * (eighths + 1), 8) > divide_up(side * eighths, 8) for side in size):
        luma = picture.planes[0]
        expected = turbo.planes(payload, *size, *SAMPLINGS[sampling][0], shrink)[0]
        there = expected[luma.top : luma.top + luma.height, luma.left : luma.left + luma.width]
        np.testing.assert_array_equal(luma.samples, there)
    # All are means of the samples of the whole size (a little off: each is rounded, and clipped at 0 and 255)
    tall, wide = SAMPLINGS[sampling][0]
    for i, plane in enumerate(picture.planes):
        whole = turbo.planes(payload, *size, tall, wide)[i].astype(float)
        factors = [((plane.tall << shrink) // (tall if i else 1)), ((plane.wide << shrink) // (wide if i else 1))]
        rows, columns = size[0] // (factors[0] * (tall if i else 1)), size[1] // (factors[1] * (wide if i else 1))
        means = whole[: rows * factors[0], : columns * factors[1]]
        means = means.reshape(rows, factors[0], columns, factors[1]).mean((1, 3))
        means = means[plane.top : plane.top + plane.height, plane.left : plane.left + plane.width]
        found = plane.samples[: means.shape[0], : means.shape[1]]
        inside = (means > 40) & (means < 215)
        assert np.abs(found - means)[inside].max(initial=0) <= 6


@pytest.mark.parametrize("options", [{"restart_marker_blocks": 5}, {"restart_marker_rows": 1}, {"optimize": True}, {}])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_files_of_pillow(kernels, options, subsampling):
    size = (120, 77)
    payload = pillow(noisy(size, 5, 10), subsampling=subsampling, exif=b"Exif\0\0" + bytes(999), **options)
    for part in [(0, 0, *size), (50, 30, 20, 20), (119, 76, 1, 1)]:
        code, picture = kernels.decode_jpeg(payload, size, part)
        assert code == GOOD
        check_planes(payload, size, part, picture, ["444", "422", "420"][subsampling])


def others():
    """JPEGs that these kernels leave to Python."""
    photo = noisy((61, 50), 7, 10)
    yield "progressive", encode(photo, progressive=True)
    yield "progressive grey", encode(photo, "grey", progressive=True)
    yield "rgb", pillow(photo, keep_rgb=True)
    yield "cmyk", pillow(np.dstack([photo, photo[..., 0]]), mode="CMYK")
    yield "adobe rgb", with_marker(without(encode(photo, "444"), 0xE0), 0xEE, b"Adobe\0\x64" + bytes(5))
    # Channels of the same size, but by other numbers
    other = bytearray(encode(photo, "444"))
    at = other.index(b"\xff\xc0")
    for i in range(3):
        other[at + 11 + 3 * i] = 0x21
    yield "odd factors", bytes(other)


@pytest.mark.parametrize("payload", [pytest.param(payload, id=name) for name, payload in others()])
def test_other_jpegs_are_to_be_decoded_whole_and_then_are_what_libjpeg_turbo_gives(kernels, payload):
    assert kernels.decode_jpeg(payload, (61, 50), (10, 10, 5, 5), 2)[0] == DECODE_WHOLE
    expected = turbo.decode(payload, 61, 50)
    if expected is not None:  # it does not know every kind
        np.testing.assert_array_equal(decode_whole(payload, 61, 50), expected)


def test_arithmetic_coding_is_to_be_decoded_whole(kernels, monkeypatch):
    monkeypatch.setenv("TJ_ARITHMETIC", "1")
    payload = turbo.encode(draw(1, 40, 50))
    assert b"\xff\xc9" in payload
    assert kernels.decode_jpeg(payload, (40, 50))[0] == DECODE_WHOLE
    np.testing.assert_array_equal(decode_whole(payload, 40, 50), turbo.decode(payload, 40, 50))


def with_quants(payload, change):
    """The JPEG with quantisation tables of 16 bits, and with fill bytes before them."""
    wide, at = bytearray(), 0
    while (found := payload.find(b"\xff\xdb", at)) >= 0:
        length = int.from_bytes(payload[found + 2 : found + 4], "big")
        content = payload[found + 4 : found + 2 + length]
        wide += payload[at:found]
        for i in range(0, len(content), 65):
            numbers = b"".join(change(n).to_bytes(2, "big") for n in content[i + 1 : i + 65])
            wide += b"\xff\xff\xff\xdb" + (67 + 64).to_bytes(2, "big") + bytes([content[i] | 16]) + numbers
        at = found + 2 + length
    return bytes(wide + payload[at:]).replace(b"\xff\xc0", b"\xff\xc1")


def test_quants_of_16_bits_and_fill_bytes(kernels):
    size = (64, 64)
    payload = encode(noisy(size, 2, 30), "444", 60)
    code, picture = kernels.decode_jpeg(with_quants(payload, lambda number: number), size)
    assert code == GOOD
    check_planes(payload, size, (0, 0, *size), picture, "444")


@pytest.mark.parametrize("shrink", [0, 1, 2, 3])
def test_absurd_coefficients_give_the_same_on_every_cpu(variants, shrink):
    size = (64, 64)
    photo = np.random.default_rng(0).integers(0, 2, (*size, 3), dtype=np.uint8) * 255
    for factor in (20, 500, 30011, 65535):
        payload = with_quants(encode(photo, "444", 100), lambda number, factor=factor: factor * number & 0xFFFF)
        (code, one), (other_code, other) = (each.decode_jpeg(payload, size, None, shrink) for each in variants.values())
        assert code == other_code == GOOD
        for plane, other_plane in zip(one.planes, other.planes, strict=True):
            np.testing.assert_array_equal(plane.samples, other_plane.samples)


def test_what_is_no_jpeg_or_of_another_size(kernels):
    payload = encode(draw(1, 30, 40))
    assert kernels.decode_jpeg(payload, (30, 40))[0] == GOOD
    assert kernels.decode_jpeg(payload, (40, 30))[0] == OTHER_SIZE
    assert kernels.decode_jpeg(payload, (30, 41))[0] == OTHER_SIZE
    for data in [b"", b"\xff", b"\xff\xd8", b"\x89PNG\r\n", bytes(100), payload[1:]]:
        assert kernels.decode_jpeg(data, (30, 40))[0] == NO_JPEG
    assert kernels.decode_jpeg(encode(draw(1, 30, 40), progressive=True), (40, 30))[0] == OTHER_SIZE


@pytest.mark.parametrize("restart", [0, 2])
@pytest.mark.parametrize("sampling", ["420", "grey"])
def test_cut_off_anywhere(kernels, restart, sampling):
    size = (60, 70)
    payload = encode(draw(4, *size), sampling, restart=restart, optimize=True)
    begin = payload.index(b"\xff\xda")
    for length in range(len(payload) - 2):
        code, picture = kernels.decode_jpeg(payload[:length], size)
        assert code == (NO_JPEG if length < 3 else DAMAGED)
        if length > begin:
            # The upper rows may be there; what is there is right
            code, picture = kernels.decode_jpeg(payload[:length], size, (0, 0, 9, 9))
            assert code in (GOOD, DAMAGED)
            if code == GOOD:
                check_planes(payload, size, (0, 0, 9, 9), picture, sampling)
    # The end marker is not needed
    assert kernels.decode_jpeg(payload[:-2], size)[0] == GOOD


@pytest.mark.parametrize("marker", [0xDB, 0xC4, 0xC0, 0xDA])
def test_missing_segments(kernels, marker):
    payload = without(encode(draw(1, 30, 40)), marker)
    assert kernels.decode_jpeg(payload, (30, 40))[0] == DAMAGED


def test_impossible_tables(kernels):
    payload = encode(draw(1, 30, 40))
    at = payload.index(b"\xff\xc4")
    for counts in [[3], [2, 1], [1, 3], [0] * 15 + [255]]:
        content = bytes(counts) + bytes(16 - len(counts)) + bytes(payload[at + 21 : at + 33])
        damaged = bytearray(payload)
        damaged[at + 5 : at + 5 + len(content)] = content
        assert kernels.decode_jpeg(bytes(damaged), (30, 40))[0] == DAMAGED


def test_restart_markers_lost_and_out_of_order(kernels):
    size = (64, 64)
    payload = encode(draw(4, *size), restart=2)
    markers = [i for i in range(len(payload) - 1) if payload[i] == 255 and 0xD0 <= payload[i + 1] <= 0xD7]
    assert len(markers) == 7
    lost = payload[: markers[2]] + payload[markers[3] :]
    swapped = bytearray(payload)
    swapped[markers[2] + 1], swapped[markers[3] + 1] = swapped[markers[3] + 1], swapped[markers[2] + 1]
    for damaged in (lost, bytes(swapped), payload[: markers[4]] + b"\xff\xd9"):
        assert kernels.decode_jpeg(damaged, size)[0] == DAMAGED
        code, picture = kernels.decode_jpeg(damaged, size, (0, 0, 10, 64))
        assert code == GOOD
        check_planes(payload, size, (0, 0, 10, 64), picture, "420")


def test_damage_beside_the_part_does_not_matter_between_restart_markers(kernels):
    size = (64, 64)
    payload = bytearray(encode(draw(4, *size), restart=2))
    good = bytes(payload)
    first = good.index(b"\xff\xda") + 14
    payload[first : first + 8] = bytes(8)
    code, picture = kernels.decode_jpeg(bytes(payload), size, (40, 40, 20, 20))
    assert code == GOOD
    check_planes(good, size, (40, 40, 20, 20), picture, "420")


@pytest.mark.parametrize("progressive", [False, True])
def test_a_huge_size_in_a_small_file_takes_no_memory(kernels, progressive):
    payload = bytearray(encode(draw(1, 30, 40), progressive=progressive))
    at = payload.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    payload[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    assert kernels.decode_jpeg(bytes(payload), (65535, 65535))[0] == DAMAGED
    code, _ = kernels.decode_jpeg(bytes(payload), (65535, 65535), (65000, 65000, 500, 500))
    assert code == DAMAGED
    code, _ = kernels.decode_jpeg(bytes(payload), (65535, 65535), (0, 0, 8, 8))
    assert code == (DAMAGED if progressive else GOOD)


def test_noise_uses_every_kind_of_code(kernels):
    """Large coefficients and blocks without an end: every sampling at quality 100, from noise."""
    size = (90, 90)
    photo = np.random.default_rng(0).integers(0, 2, (*size, 3), dtype=np.uint8) * 255
    for sampling in SAMPLINGS:
        for optimize in (False, True):
            payload = encode(photo, sampling, 100, optimize)
            for part in [(0, 0, *size), (45, 45, 9, 9)]:
                code, picture = kernels.decode_jpeg(payload, size, part)
                assert code == GOOD
                check_planes(payload, size, part, picture, sampling)


@pytest.mark.parametrize("size", [(65500, 9), (9, 65500)])
@pytest.mark.parametrize("restart", [0, 3])
def test_the_far_end_of_a_long_photo(kernels, size, restart):
    payload = encode(draw(1, *size), restart=restart)
    for part in [(size[0] - 9, size[1] - 9, 9, 9), (size[0] // 2, size[1] // 2, 3, 3)]:
        code, picture = kernels.decode_jpeg(payload, size, part)
        assert code == GOOD
        assert sum(plane.samples.size for plane in picture.planes) < 9000
        check_planes(payload, size, part, picture, "420")


def test_tables_that_change_and_come_again(kernels):
    """The decoding tables stay from photo to photo: some of their own, then the standard ones, by turns."""
    size, part = (100, 120), (60, 60, 20, 20)
    payloads = [encode(noisy(size, i, 10 * i), "420", 40 + 15 * i, optimize=i % 2 == 0) for i in range(4)]
    for i in [0, 0, 1, 2, 3, 1, 1, 0, 2, 2, 3]:
        code, picture = kernels.decode_jpeg(payloads[i], size, part)
        assert code == GOOD
        check_planes(payloads[i], size, part, picture, "420")


def test_a_part_beyond_the_photo_is_cut_to_it(kernels):
    size = (30, 40)
    payload = encode(draw(1, *size))
    cut = {(-10, -10, 100, 100): (0, 0, 30, 40), (40, 50, 5, 5): (29, 39, 1, 1), (-9, -9, 3, 3): (0, 0, 1, 1)}
    for part, inside in cut.items():
        code, picture = kernels.decode_jpeg(payload, size, part)
        assert code == GOOD
        check_planes(payload, size, inside, picture, "420")
