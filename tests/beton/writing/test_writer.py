import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beton.format import records
from beton.format.fields.image import Image
from beton.format.file import BetonFile
from beton.format.modes import MODES as STORED
from tests.support.betons import (
    BLOCKS,
    JPEG,
    RAW,
    card_of,
    chosen_jpegs,
    image_records,
    payloads,
    sha256,
    stored_photos,
    write_cli,
    write_good,
)
from tests.support.photos import draw, make_folder

MODES = {
    "raw": {"write_mode": "raw"},
    "jpg": {"write_mode": "jpg"},
    "proportion": {"write_mode": "proportion", "compress_probability": 0.3},
    "smart": {"write_mode": "smart", "smart_threshold": 6000},
    "blocks": {"write_mode": "blocks"},
    "proportion_blocks": {"write_mode": "proportion", "compress_probability": 0.3, "rest": "blocks"},
}
SIZES = [(40 + 5 * (i % 4), 30 + 4 * (i % 5)) for i in range(21)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    make_folder(folder, SIZES, classes=3)
    return folder


@pytest.fixture
def small_pages(monkeypatch):
    monkeypatch.setattr(records, "_SMALLEST_PAGE", 4096)


def modes(path):
    return image_records(path)["mode"]


def type_of(path):
    with BetonFile(path) as file:
        return file.fields["image"]


@pytest.mark.parametrize("mode", MODES)
def test_bytes_do_not_depend_on_the_number_of_workers(folder, tmp_path, mode):
    written = [
        write_good(tmp_path / f"{workers}.beton", folder, num_workers=workers, chunk_size=chunk, **MODES[mode])
        for workers, chunk in ((1, 100), (2, 1), (3, 4))
    ]
    assert len({sha256(path) for path in written}) == 1


def test_another_seed_chooses_other_jpegs(folder, tmp_path):
    one, two = (write_good(tmp_path / f"{s}.beton", folder, seed=s, **MODES["proportion"]) for s in (1, 2))
    assert modes(one).tolist() != modes(two).tolist()
    assert (modes(one) == JPEG).sum() == (modes(two) == JPEG).sum() == round(0.3 * 21)


def test_card_tells_the_truth(folder, tmp_path):
    path = tmp_path / "a.beton"
    done = write_cli(path, folder, seed=5, jpeg_quality=80, max_resolution=40, **MODES["proportion"])
    card = json.loads((tmp_path / "a.beton.json").read_text())
    sizes = np.array([len(payload) for payload in payloads(path)])
    assert (card["sha256"], card["bytes"]) == (sha256(path), path.stat().st_size)
    assert (card["num_samples"], card["skipped"], card["seed"]) == (21, [], 5)
    assert card["classes"] == ["class_0", "class_1", "class_2"]
    assert card["class_to_idx"] == {"class_0": 0, "class_1": 1, "class_2": 2}
    assert card["samples_per_class"] == {"class_0": 7, "class_1": 7, "class_2": 7}
    assert card["samples_per_mode"] == {"jpg": 6, "raw": 15}
    assert card["bytes_per_mode"] == {
        "jpg": sizes[modes(path) == JPEG].sum(),
        "raw": sizes[modes(path) == RAW].sum(),
    }
    assert card["fields"] == {"image": "rgb_image", "label": "int"}
    assert card["passed_through"] == 0
    assert card["source"] == {"name": "imagenet", "data_dir": str(folder), "split": "train"}
    given = {"write_mode": "proportion", "compress_probability": 0.3, "max_resolution": 40, "jpeg_quality": 80}
    assert card["parameters"].items() >= {**given, "num_workers": 2, "subset": -1, "on_error": "raise"}.items()
    assert card["seconds"] >= 0
    assert card_of(path) == card
    # and the same at the end of the run
    assert f"{path}: 21 photos, 3 classes" in done.stdout
    assert "jpg: 6 photos" in done.stdout
    assert card["sha256"][:16] in done.stdout
    assert "images/s" in done.stdout


def test_labels_and_photos_are_in_the_order_of_the_source(folder, tmp_path):
    with BetonFile(write_good(tmp_path / "a.beton", folder, write_mode="raw", num_workers=3, chunk_size=2)) as file:
        assert file.labels.tolist() == [0] * 7 + [1] * 7 + [2] * 7
    for i, photo in enumerate(stored_photos(tmp_path / "a.beton")):
        np.testing.assert_array_equal(photo, draw(i, *SIZES[i]))


def test_jpegs_have_the_quality_asked_for(folder, tmp_path):
    path = write_good(tmp_path / "a.beton", folder, write_mode="jpg", jpeg_quality=35, restart_markers=0)
    for i, payload in enumerate(payloads(path)):
        bgr = cv2.cvtColor(draw(i, *SIZES[i]), cv2.COLOR_RGB2BGR)
        assert payload == cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 35])[1].tobytes()


def test_jpegs_have_restart_markers_that_change_no_pixel(tmp_path):
    # Width -> MCUs between two markers
    intervals = {16: 1, 17: 2, 48: 3, 64: 4, 80: 5, 96: 3, 97: 7, 128: 4, 400: 5, 176: 11}
    make_folder(tmp_path / "photos", [(40, width) for width in intervals])
    path = write_good(tmp_path / "a.beton", tmp_path / "photos", write_mode="jpg")
    without = write_good(tmp_path / "b.beton", tmp_path / "photos", write_mode="jpg", restart_markers=0)
    for payload, (width, interval) in zip(payloads(path), intervals.items(), strict=True):
        assert b"\xff\xdd\0\4\0" + bytes([interval]) in payload
        found = [payload.count(bytes([0xFF, marker])) for marker in range(0xD0, 0xD8)]
        assert sum(found) == 3 * -(-width // 16) // interval - 1  # 40 pixels are three rows of MCUs
    for payload in payloads(without):
        assert b"\xff\xdd" not in payload
        assert b"\xff\xd0" not in payload
    for photo, same in zip(stored_photos(path), stored_photos(without), strict=True):
        np.testing.assert_array_equal(photo, same)
    assert card_of(path)["parameters"]["restart_markers"] is True


def test_blocks_are_stored_as_blocks(folder, tmp_path):
    path = write_good(tmp_path / "a.beton", folder, write_mode="blocks", max_resolution=40)
    card, image = card_of(path), image_records(path)
    assert (modes(path) == BLOCKS).all()
    sizes = STORED.get("blocks").size(image["height"].astype(int), image["width"].astype(int)).tolist()
    assert [len(payload) for payload in payloads(path)] == sizes
    assert card["fields"] == {"image": "blocks_image", "label": "int"}
    assert card["samples_per_mode"] == {"blocks": 21}
    assert card["bytes_per_mode"] == {"blocks": sum(sizes)}
    raw = write_good(tmp_path / "b.beton", folder, write_mode="raw", max_resolution=40)
    for photo, pixels in zip(stored_photos(path), stored_photos(raw), strict=True):
        assert photo.shape == pixels.shape
        assert np.abs(photo.astype(int) - pixels).mean() < 5


def test_rest_says_what_is_stored_of_photos_that_are_no_jpeg(folder, tmp_path):
    both = {"rest": "blocks", "max_resolution": 40}
    mixed = write_good(tmp_path / "mixed.beton", folder, **MODES["proportion"], **both)
    assert card_of(mixed)["samples_per_mode"] == {"jpg": 6, "blocks": 15}
    assert card_of(mixed)["fields"]["image"] == type_of(mixed) == "blocks_image"
    assert (modes(mixed) == JPEG).tolist() == chosen_jpegs(21, share=0.3)
    smart = write_good(tmp_path / "smart.beton", folder, **both)
    assert payloads(smart) == payloads(write_good(tmp_path / "a.beton", folder, write_mode="blocks", max_resolution=40))
    # No photo is stored as blocks: a file that FFCV reads
    for mode, field in (("raw", RAW), ("jpg", JPEG)):
        path = write_good(tmp_path / f"{mode}.beton", folder, write_mode=mode, **both)
        assert (modes(path) == field).all()
        assert type_of(path) == "rgb_image"


@settings(max_examples=200)
@given(st.floats(0, 1), st.integers(0, 400), st.integers(0, 2**31 - 1))
def test_proportion_chooses_exactly_its_share(share, count, seed):
    chosen = chosen_jpegs(count, seed, share)
    assert len(chosen) == count
    assert sum(chosen) == round(share * count)
    assert chosen == chosen_jpegs(count, seed, share)


@pytest.mark.parametrize("share", [0.5, 0.2, 1, 0])
@pytest.mark.parametrize("damaged", [(4, 0), (0, 4), (1, 3), (6, 2)], ids="jpg{0[0]}-raw{0[1]}".format)
def test_proportion_is_exact_though_photos_are_left_out(tmp_path, share, damaged):
    sizes = [(20, 24 + i) for i in range(20)]  # the width tells which photo it is
    make_folder(tmp_path / "photos", sizes)
    jpegs = chosen_jpegs(20, 3, share)
    bad = [i for i in range(20) if jpegs[i]][: damaged[0]] + [i for i in range(20) if not jpegs[i]][: damaged[1]]
    for i in bad:
        next((tmp_path / "photos").glob(f"*/{i:03d}.png")).write_text("no photo")
    options = {"write_mode": "proportion", "compress_probability": share, "seed": 3, "on_error": "skip"}
    path = write_good(tmp_path / "a.beton", tmp_path / "photos", **options)
    again = write_good(tmp_path / "b.beton", tmp_path / "photos", num_workers=1, **options)
    kept = [i for i in range(20) if i not in bad]
    assert (modes(path) == JPEG).sum() == round(share * len(kept))
    assert [photo.shape for photo in stored_photos(path)] == [(*sizes[i], 3) for i in kept]
    with BetonFile(path) as file:
        assert file.labels.tolist() == [i // 10 for i in kept]
    for i, photo in zip(kept, stored_photos(path), strict=True):
        assert np.abs(photo.astype(int) - draw(i, *sizes[i])).mean() < 8
    assert sha256(path) == sha256(again)
    card = card_of(path)
    assert len(card["skipped"]) == len(bad)
    assert sum(card["bytes_per_mode"].values()) == sum(map(len, payloads(path)))


def test_smart_compresses_what_takes_more_bytes_than_the_threshold(folder, tmp_path):
    raw_bytes = np.array([3 * height * width for height, width in SIZES])
    threshold = int(raw_bytes[4])  # that photo itself takes no more, so it stays raw
    path = write_good(tmp_path / "a.beton", folder, write_mode="smart", smart_threshold=threshold)
    assert (modes(path) == JPEG).tolist() == (raw_bytes > threshold).tolist()
    assert 0 < (modes(path) == JPEG).sum() < 21


def test_smart_without_a_threshold_stores_raw_and_says_so(folder, tmp_path):
    done = write_cli(tmp_path / "a.beton", folder)  # smart is the default
    assert (modes(tmp_path / "a.beton") == RAW).all()
    assert "smart_threshold" in done.stdout


def test_subset_takes_the_first_photos(folder, tmp_path):
    part = write_good(tmp_path / "a.beton", folder, write_mode="raw", subset=10)
    whole = write_good(tmp_path / "b.beton", folder, write_mode="raw")
    assert payloads(part) == payloads(whole)[:10]
    assert card_of(part)["samples_per_class"] == {"class_0": 7, "class_1": 3, "class_2": 0}
    assert card_of(write_good(tmp_path / "c.beton", folder, subset=99))["num_samples"] == 21


def test_max_resolution_is_the_longest_side_and_keeps_the_aspect_ratio(tmp_path):
    sizes = [(90, 60), (60, 90), (64, 64), (200, 67), (33, 64), (1, 1000), (1000, 1), (20, 30), (1999, 1333)]
    photos = make_folder(tmp_path / "photos", sizes)
    path = write_good(tmp_path / "a.beton", tmp_path / "photos", write_mode="raw", max_resolution=64)
    for (height, width), photo, stored in zip(sizes, photos, stored_photos(path), strict=True):
        ratio = min(1, 64 / max(height, width))
        shape = (max(1, int(ratio * height)), max(1, int(ratio * width)))
        assert stored.shape == (*shape, 3)
        expected = photo if ratio == 1 else cv2.resize(photo, shape[::-1], interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(stored, expected)


@settings(max_examples=200)
@given(st.integers(1, 120), st.integers(1, 120), st.integers(1, 120), st.sampled_from(["noise", "white"]))
def test_photos_are_shrunk_to_opencvs_pixels(height, width, longest, what):
    photo = np.random.default_rng(height).integers(0, 256 if what == "noise" else 1, (height, width, 3), np.uint8)
    photo = photo if what == "noise" else ~photo
    shrunk = Image(max_resolution=longest)._shrink(photo)
    if longest < max(height, width):
        photo = cv2.resize(photo, shrunk.shape[1::-1], interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(shrunk, photo)


def test_no_payload_crosses_a_page(folder, tmp_path, small_pages):
    path = write_good(tmp_path / "a.beton", folder, write_mode="proportion", max_resolution=36)
    with BetonFile(path) as file:
        first, sizes = file.columns["image"].addresses.astype(int), file.columns["image"].sizes
        assert file.page_size == 4096
    assert (first // 4096 == (first + sizes - 1) // 4096).all()
    assert len(np.unique(first // 4096)) > 5
    spans = sorted(zip(first, first + sizes, strict=True))
    assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:], strict=False))
    assert spans[0][0] >= 24 + 2 * 1041 + 24 * 21  # behind the tables


def test_pages_are_large_enough_for_the_largest_raw_photo(tmp_path):
    make_folder(tmp_path / "photos", [(1800, 1800), (30, 30)])  # 9.7 MB, more than FFCV's page of 8 MiB
    path = write_good(tmp_path / "a.beton", tmp_path / "photos", write_mode="raw", max_resolution=1800)
    with BetonFile(path) as file:
        assert file.page_size == 16 << 20
    assert stored_photos(path)[0].shape == (1800, 1800, 3)


def test_pages_grow_with_a_photo_that_is_stored_again_as_pixels(tmp_path, small_pages):
    jpegs = chosen_jpegs(8)
    photos = make_folder(tmp_path / "photos", [(64, 64) if jpeg else (20, 20) for jpeg in jpegs])
    bad = [i for i in range(8) if not jpegs[i]][:2]
    for i in bad:
        next((tmp_path / "photos").glob(f"*/{i:03d}.png")).write_bytes(b"")
    path = write_good(tmp_path / "a.beton", tmp_path / "photos", write_mode="proportion", on_error="skip")
    with BetonFile(path) as file:
        first, sizes = file.columns["image"].addresses.astype(int), file.columns["image"].sizes
        assert file.page_size == 16384
    assert (first // 16384 == (first + sizes - 1) // 16384).all()
    assert sorted(modes(path)) == [JPEG] * 3 + [RAW] * 3
    kept = [photo for i, photo in enumerate(photos) if i not in bad]
    for photo, stored in zip(kept, stored_photos(path), strict=True):
        assert np.abs(stored.astype(int) - photo).mean() < 8
