"""Photos that are JPEGs already: which of them are stored as they are, and what the others become."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from beton.format.photo_files import to_pixels, to_rgb
from tests.support.betons import (
    BLOCKS,
    JPEG,
    RAW,
    card_of,
    chosen_jpegs,
    files_in,
    image_records,
    payloads,
    stored_photos,
    write_cli,
    write_good,
)
from tests.support.photos import draw
from tests.support.scripts import assert_user_error

PHOTO = draw(3, 45, 70)


def jpeg(pixels=PHOTO, **options) -> bytes:
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, "JPEG", **options)
    return file.getvalue()


def sampled(factor: int) -> bytes:
    return cv2.imencode(".jpg", PHOTO, [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor])[1].tobytes()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return jpeg(exif=exif)


PLAIN = jpeg()
SCAN = PLAIN.index(b"\xff\xda")
FRAME = PLAIN.index(b"\xff\xc0")
ADOBE = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0"


def frame(at: int, content: bytes) -> bytes:
    """PLAIN with another frame header."""
    return PLAIN[: FRAME + at] + content + PLAIN[FRAME + at + len(content) :]


# Stored as they are
PASSED = {
    "420": PLAIN,
    "444": jpeg(subsampling="4:4:4", quality=98),
    "422": jpeg(subsampling="4:2:2"),
    "440": sampled(cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440),
    "411": sampled(cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411),
    "optimised": jpeg(optimize=True),
    "restart": jpeg(restart_marker_blocks=2),
    "comment": jpeg(comment=b"\xff\xd9 in a comment", icc_profile=b"colours" * 20000),
    "turned": turned(),  # every decoder here leaves the orientation alone
    "adobe_ycc": PLAIN[:2] + ADOBE + b"\1" + PLAIN[2:],
    "tiny": jpeg(draw(1, 1, 1)),
}
# Encoded again
ENCODED = {
    "progressive": jpeg(progressive=True),
    "grey": jpeg(PHOTO[..., 0]),
    "cmyk": jpeg(Image.fromarray(PHOTO).convert("CMYK")),
    "rgb": jpeg(keep_rgb=True),
    "large": jpeg(draw(1, 45, 101)),
    "tall": jpeg(draw(1, 101, 45)),
    "followed": PLAIN + b"\0",
    "two": PLAIN + PLAIN,
    "adobe_unknown": PLAIN[:2] + ADOBE + b"\0" + PLAIN[2:],  # with JFIF it still is YCbCr
    "short_marker": PLAIN[:20] + b"\xff\xe5\0\0" + PLAIN[20:],
    "not_jpeg.png": b"",
}
# Not stored: errors, as without passthrough
DAMAGED = {
    "truncated": PLAIN[:-200],
    "truncated_at_the_end": PLAIN[:-2],
    "truncated_header": PLAIN[: SCAN - 30],
    "no_width": frame(7, b"\0\0"),
    "deep": frame(4, b"\x10"),
    "two_channels": frame(9, b"\2"),
    "other_channels": PLAIN[: SCAN + 5] + b"\7" + PLAIN[SCAN + 6 :],
    "no_tables": PLAIN[:2] + PLAIN[FRAME:],
    "nothing_but_ends": b"\xff\xd8\xff\xd9",
}


def make(folder, files: dict):
    """A class of each name with the file in it."""
    for name, content in files.items():
        (folder / name).mkdir(parents=True)
        file = folder / name / (name if "." in name else f"{name}.jpg")
        if len(content):
            file.write_bytes(content)
        else:
            Image.fromarray(PHOTO).save(file)
    return folder


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """Photos of all kinds, by class, written with passthrough: (names of the classes, folder, beton)."""
    folder = tmp_path_factory.mktemp("passthrough")
    photos = make(folder / "photos", {**PASSED, **ENCODED})
    path = write_good(folder / "a.beton", photos, write_mode="jpg", passthrough=1, max_resolution=100)
    return dict(zip(sorted({**PASSED, **ENCODED}), payloads(path), strict=True)), photos, path


@pytest.mark.parametrize("name", PASSED)
def test_plain_jpeg_is_stored_as_it_is(kinds, name):
    assert kinds[0][name] == PASSED[name]


@pytest.mark.parametrize("name", ENCODED)
def test_other_photo_is_encoded(kinds, name):
    stored = Image.open(io.BytesIO(kinds[0][name]))
    assert kinds[0][name] != ENCODED[name]
    assert (stored.mode, max(stored.size) <= 100, stored.info.get("progressive")) == ("RGB", True, None)


def test_card_counts_what_was_passed_through_and_records_have_its_size(kinds, tmp_path):
    _, photos, path = kinds
    card, records = card_of(path), image_records(path)
    assert card["passed_through"] == len(PASSED)
    assert card["samples_per_mode"] == {"jpg": len(PASSED) + len(ENCODED)}
    assert [(r["height"], r["width"], 3) for r in records] == [photo.shape for photo in stored_photos(path)]
    done = write_cli(tmp_path / "b.beton", photos, write_mode="jpg", passthrough=1)
    assert (
        f"passed through: {len(PASSED) + 2} of the JPEGs" in done.stdout
    )  # without max_resolution nothing is too large
    plain = write_good(tmp_path / "c.beton", photos, write_mode="jpg", max_resolution=100)
    assert card_of(plain)["passed_through"] == 0
    assert PLAIN not in payloads(plain)


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_file_is_an_error_as_without_passthrough(tmp_path, name):
    photos = make(tmp_path / "photos", {name: DAMAGED[name]})
    out = tmp_path / "out"
    out.mkdir()
    for passthrough in (0, 1):
        done = write_cli(out / "a.beton", photos, write_mode="jpg", passthrough=passthrough)
        assert_user_error(done, f"cannot read {photos}/{name}/{name}.jpg")
    assert files_in(out) == []


@pytest.mark.parametrize("rest", ["raw", "blocks"])
def test_proportion_is_exact_with_passthrough_and_photos_left_out(tmp_path, rest):
    options = {"write_mode": "proportion", "compress_probability": 0.5, "seed": 2, "passthrough": 1, "rest": rest}
    chosen = chosen_jpegs(20, seed=2)
    files = {f"{i:02d}": jpeg(draw(i, 20, 24 + i), progressive=i % 5 == 0) for i in range(20)}
    for i in [i for i in range(20) if chosen[i]][:5]:
        files[f"{i:02d}"] = b"damaged"
    photos = make(tmp_path / "photos", files)
    path, again = (
        write_good(tmp_path / f"{n}.beton", photos, on_error="skip", num_workers=n, **options) for n in (1, 3)
    )
    modes = image_records(path)["mode"].tolist()
    assert (modes.count(JPEG), modes.count(RAW if rest == "raw" else BLOCKS)) == (8, 7)
    passed = [payload in files.values() for payload in payloads(path)]
    assert 0 < sum(passed) == card_of(path)["passed_through"] < 8
    assert path.read_bytes() == again.read_bytes()


def test_smart_passes_through_what_becomes_a_jpeg(tmp_path):
    photos = make(tmp_path / "photos", {"large": PLAIN, "small": jpeg(draw(1, 20, 20))})
    path = write_good(tmp_path / "a.beton", photos, passthrough=1, smart_threshold=3 * 45 * 70 - 1)
    assert payloads(path)[0] == PLAIN
    assert image_records(path)["mode"].tolist() == [JPEG, RAW]


def test_file_larger_than_a_page_is_stored_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("beton.format.records._SMALLEST_PAGE", 4096)
    large = jpeg(quality=100, comment=b" " * 4000)
    photos = make(tmp_path / "photos", {"large": large, "small": PLAIN})
    path = write_good(tmp_path / "a.beton", photos, write_mode="jpg", passthrough=1, jpeg_quality=80)
    assert card_of(path)["passed_through"] == 2
    assert payloads(path) == [large, PLAIN]


@pytest.mark.parametrize("name", [*PASSED, *ENCODED])
def test_quick_decoding_gives_pillows_pixels(kinds, name):
    content = next((kinds[1] / name).iterdir()).read_bytes()
    expected = np.asarray(to_rgb(content))
    np.testing.assert_array_equal(to_pixels(content), expected)
    np.testing.assert_array_equal(to_pixels(content, bgr=True), expected[..., ::-1])


def test_quick_decoding_of_damaged_files_does_what_pillow_does(capfd):
    rng, decoded = np.random.default_rng(0), 0
    for content in (PLAIN, PASSED["444"], ENCODED["progressive"], PASSED["restart"]):
        for _ in range(60):
            damaged = bytearray(content)
            for at in rng.integers(0, len(content), 3):
                damaged[at] = rng.integers(256)
            try:
                expected = np.asarray(to_rgb(bytes(damaged)))
            except Exception as error:  # noqa: BLE001
                with pytest.raises(type(error)):
                    to_pixels(bytes(damaged))
            else:
                np.testing.assert_array_equal(to_pixels(bytes(damaged)), expected)
                decoded += 1
    assert decoded > 60
    assert capfd.readouterr().err == ""
