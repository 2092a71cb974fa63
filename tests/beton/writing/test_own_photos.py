"""Photos as people have them: turned by the camera, larger than a page, few and small; which file was which sample."""

import numpy as np
import pytest
from PIL import Image, ImageOps

import beton
from tests.support.betons import stored_photos, write_cli, write_good, write_source
from tests.support.photos import Source, draw, encoded


def turned(orientation: int, kind: str, **options) -> bytes:
    """A photo whose EXIF entry says that a viewer has to turn it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(draw(1, 20, 30), kind, exif=exif, **options)


@pytest.fixture
def camera(tmp_path):
    """A folder with a photo of every orientation, as JPEG and as PNG."""
    for kind in ("jpeg", "png"):
        for orientation in range(1, 9):
            path = tmp_path / "photos" / kind / f"{orientation}.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(turned(orientation, kind))
    return tmp_path / "photos"


def test_exif_orientation_is_ignored_and_counted(camera, tmp_path):
    done = write_cli(tmp_path / "a.beton", camera, write_mode="raw")
    assert "EXIF orientation: ignored in 14 photos" in done.stdout
    assert "cfg.exif=apply" in done.stdout
    assert beton.open(tmp_path / "a.beton").card["notes"] == {"EXIF orientation: ignored": 14}
    assert {photo.shape for photo in stored_photos(tmp_path / "a.beton")} == {(20, 30, 3)}


def test_exif_orientation_is_applied_as_pillow_applies_it(camera, tmp_path):
    path = write_good(tmp_path / "a.beton", camera, write_mode="raw", exif="apply")
    with beton.open(path) as file:
        for sample, name in enumerate(file.names):
            expected = ImageOps.exif_transpose(Image.open(camera / name))
            assert np.array_equal(file[sample].image, np.asarray(expected)), name


def test_a_turned_jpeg_is_passed_through_only_where_orientation_is_ignored(camera, tmp_path):
    for exif, passed in (("ignore", 8), ("apply", 1)):
        done = write_cli(tmp_path / "a.beton", camera, write_mode="jpg", passthrough=1, exif=exif)
        assert done.returncode == 0, done.stderr
        assert beton.open(tmp_path / "a.beton").card["passed_through"] == passed


def test_a_photo_larger_than_a_page_is_stored_and_pages_grow(tmp_path):
    photos = [draw(0, 30, 40), np.zeros((2000, 1500, 3), np.uint8), draw(1, 30, 40)]
    photos[1][::7] = 200
    write_source(Source(photos), tmp_path / "a.beton", "raw")
    with beton.open(tmp_path / "a.beton") as file:
        assert file.page_size == 16 << 20
        assert all(np.array_equal(file[i].image, photo) for i, photo in enumerate(photos))
        column = file.columns["image"]
        first, last = column.addresses.astype(np.int64), column.addresses.astype(np.int64) + column.sizes - 1
        assert (first // file.page_size == last // file.page_size).all()


def test_a_small_data_set_is_a_small_file(tmp_path):
    card = write_source(Source([draw(i, 30, 40) for i in range(5)]), tmp_path / "a.beton", "jpg")
    assert card["bytes"] < sum(card["bytes_per_mode"].values()) + 4096


def test_stock_ffcv_reads_a_small_file_and_grown_pages(tmp_path, uncompiled):
    from tests.support.loaders import run_epoch

    for photos in ([draw(i, 30, 40) for i in range(20)], [np.full((1800, 1700, 3), 7 * i, np.uint8) for i in range(6)]):
        write_source(Source(photos), tmp_path / "a.beton", "raw")
        options = {"stages": "center(16, ratio=1)", "batch_size": 2, "shuffle": False}
        for in_memory in (True, False):
            ours, theirs = (
                run_epoch(n, tmp_path / "a.beton", in_memory=in_memory, **options) for n in ("beton", "ffcv")
            )
            for (one, label), (other, same_label) in zip(ours, theirs, strict=True):
                assert label.tolist() == same_label.tolist()
                assert (one.int() - other.int()).abs().max() <= 3  # the filters round differently


def test_the_card_knows_each_samples_file(camera, tmp_path):
    (camera / "png" / "broken.png").write_bytes(b"no photo")
    path = write_good(tmp_path / "a.beton", camera, write_mode="raw", on_error="skip")
    with beton.open(path) as file:
        assert file.names == [f"{kind}/{n}.{kind}" for kind in ("jpeg", "png") for n in range(1, 9)]
        assert "jpeg/3.jpeg" in file.describe(2)


def test_a_subset_says_how_many_classes_it_reached_and_a_random_one_draws_from_all(camera, tmp_path):
    done = write_cli(tmp_path / "a.beton", camera, subset=5)
    assert "only 1 of 2 classes have photos (cfg.random_subset" in done.stdout
    names = []
    for seed in (0, 0, 1):
        path = write_good(tmp_path / "a.beton", camera, random_subset=12, seed=seed)
        names.append(beton.open(path).names)
    assert names[0] == names[1] != names[2]
    assert len(names[0]) == 12
    assert {name.split("/")[0] for name in names[0]} == {"jpeg", "png"}
