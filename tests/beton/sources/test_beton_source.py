"""A .beton written from another: what the parameters do not change is taken over, the rest is as from the photos."""

import numpy as np
import pytest

from beton.errors import UserError
from beton.format.file import BetonFile
from beton.sources import open_source
from tests.support.betons import (
    card_of,
    copied,
    damage,
    flip_bits,
    payloads,
    sha256,
    stored_photos,
    write_cli,
    write_good,
)
from tests.support.scripts import assert_user_error


def again(path, beton, **how):
    """Write `beton` to `path` with other parameters."""
    return write_good(path, beton, dataset="beton", **how)


@pytest.mark.parametrize("how", [{"write_mode": "proportion", "rest": "blocks"}, {"write_mode": "smart"}])
def test_the_same_parameters_give_the_same_bytes(photo_folder, tmp_path, how):
    how = {**how, "max_resolution": 100, "jpeg_quality": 80, "seed": 5, "smart_threshold": 25000}
    first = write_good(tmp_path / "a.beton", photo_folder / "val", **how)
    second = again(tmp_path / "b.beton", first, **how)
    assert sha256(second) == sha256(first)
    kept = ("names", "classes", "checksums", "samples_per_mode", "passed_through")
    assert {key: card_of(second)[key] for key in kept} == {key: card_of(first)[key] for key in kept}


def test_jpegs_are_taken_over_unless_their_quality_is_to_be_another_one(photo_folder, tmp_path):
    first = write_good(tmp_path / "a.beton", photo_folder / "val", write_mode="jpg", max_resolution=100)
    for how, kept in (({"jpeg_quality": 60}, False), ({"jpeg_quality": 60, "passthrough": 1}, True)):
        second = again(tmp_path / "b.beton", first, write_mode="jpg", **how)
        assert (payloads(second) == payloads(first)) is kept
    passed = write_good(tmp_path / "c.beton", photo_folder / "val", write_mode="jpg", passthrough=1)
    assert card_of(again(tmp_path / "d.beton", passed, write_mode="jpg"))["passed_through"] == 41


def test_blocks_and_smaller_photos_of_raw_pixels_are_those_of_the_photos(photo_folder, tmp_path):
    raw = write_good(tmp_path / "a.beton", photo_folder / "val", write_mode="raw")
    for how in ({"write_mode": "blocks", "max_resolution": 64}, {"write_mode": "jpg", "jpeg_quality": 70}):
        expected = write_good(tmp_path / "b.beton", photo_folder / "val", **how)
        assert sha256(again(tmp_path / "c.beton", raw, **how)) == sha256(expected)
    # Blocks that are to be blocks are not encoded once more
    blocks = write_good(tmp_path / "d.beton", photo_folder / "val", write_mode="blocks", max_resolution=64)
    assert payloads(again(tmp_path / "e.beton", blocks, write_mode="blocks", max_resolution=80)) == payloads(blocks)


def test_pixels_of_jpegs_are_those_that_are_stored(betons, tmp_path):
    path = again(tmp_path / "a.beton", betons["val"], write_mode="raw")
    for pixels, stored in zip(stored_photos(path), stored_photos(betons["val"]), strict=True):
        np.testing.assert_array_equal(pixels, stored)


def test_some_classes_keep_their_names_and_order(betons, tmp_path):
    (tmp_path / "classes.txt").write_text("stars\n\ndots\n")
    path = again(tmp_path / "a.beton", betons["val"], write_mode="jpg", classes=tmp_path / "classes.txt")
    with BetonFile(path) as file, BetonFile(betons["val"]) as whole:
        chosen = [i for i in range(len(whole)) if whole.class_of(i) in ("dots", "stars")]
        assert file.classes == ["dots", "stars"]
        assert [file.class_of(i) for i in range(len(file))] == [whole.class_of(i) for i in chosen]
        assert [file.payload(i, "image") for i in range(len(file))] == [whole.payload(i, "image") for i in chosen]
    done = write_cli(tmp_path / "b.beton", betons["val"], dataset="beton", classes="dots,cats")
    assert_user_error(done, "no class 'cats'", "blobs, checks")


def test_a_damaged_sample_is_an_error_or_left_out(betons, tmp_path):
    bad = damage(copied(betons["val"], tmp_path / "bad.beton"), [7], flip_bits)
    done = write_cli(tmp_path / "a.beton", bad, dataset="beton", write_mode="jpg")
    assert_user_error(done, f"cannot read sample 7 of {bad} (its checksum differs)", "cfg.on_error=skip")
    path = again(tmp_path / "a.beton", bad, write_mode="jpg", on_error="skip")
    stored = payloads(betons["val"])
    assert payloads(path) == stored[:7] + stored[8:]


def test_no_beton_is_an_error(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        open_source("beton", str(tmp_path / "none.beton"), "train")
