"""check, info, preview and compare: what they say of good betons, of damaged ones, and of a changed folder."""

import json
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from beton.format.card import card_path
from beton.inspecting.compare import _kept
from tests.support.betons import copied, damage, flip_bits, image_records, write_good
from tests.support.photos import draw, make_folder
from tests.support.scripts import here

SIZES = [(40 + i, 64 - i) for i in range(12)]


def look(*argv):
    """`write_dataset.py check ...` in this process."""
    return here("write_dataset.py", *argv)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A photo folder and a beton of it, of JPEGs and blocks."""
    folder = tmp_path_factory.mktemp("made")
    make_folder(folder / "photos", SIZES)
    return write_good(folder / "a.beton", folder / "photos", write_mode="proportion", rest="blocks", max_resolution=60)


@pytest.fixture
def copy(made, tmp_path):
    """A copy of the beton and of its card."""
    return copied(made, tmp_path / "b.beton")


@pytest.fixture
def folder(made, tmp_path):
    """A copy of the photo folder."""
    return shutil.copytree(made.parent / "photos", tmp_path / "photos")


def test_a_good_beton(made):
    done = look("check", made)
    assert (done.returncode, done.stderr) == (0, "")
    assert "all 12 samples are good" in done.stdout
    assert "every checksum compared" in done.stdout


def test_every_damaged_sample_is_named(copy):
    damage(copy, [2, 7], flip_bits)
    done = look("check", copy)
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert [line.split(" (")[0] for line in lines[:2]] == ["damaged: sample 2", "damaged: sample 7"]
    assert "class_1, " in lines[1]
    assert "its checksum differs" in lines[1]
    assert "2 of 12 samples are damaged" in lines[2]


def test_at_most_twenty_are_named(tmp_path):
    make_folder(tmp_path / "photos", [(20, 20)] * 25)
    path = write_good(tmp_path / "a.beton", tmp_path / "photos", write_mode="raw")
    damage(path, range(23), flip_bits)
    done = look("check", path)
    assert done.returncode == 1
    assert done.stdout.count("damaged: sample") == 20
    assert "... and 3 more" in done.stdout
    assert "23 of 25 samples are damaged" in done.stdout


def test_without_a_card_every_photo_is_decoded(copy):
    card_path(copy).unlink()
    done = look("check", copy)
    assert done.returncode == 0
    assert "no checksums: every sample decoded" in done.stdout
    jpegs = np.flatnonzero(image_records(copy)["mode"] == 0)
    damage(copy, [jpegs[1]], lambda stored: stored[:8].fill(0))
    done = look("check", copy)
    assert done.returncode == 1
    assert f"damaged: sample {jpegs[1]} " in done.stdout
    assert "1 of 12 samples is damaged" in done.stdout


def test_a_jpeg_that_was_damaged_when_it_was_passed_through_is_found(tmp_path):
    """Its checksum is right: it was made of the damaged file."""
    for i in range(3):
        (tmp_path / "photos/c").mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(i, 60, 90)).save(tmp_path / f"photos/c/{i}.jpg")
    photo = tmp_path / "photos/c/1.jpg"
    content = bytearray(photo.read_bytes())
    content[len(content) // 2 : -2] = bytes(len(content) - 2 - len(content) // 2)
    photo.write_bytes(content)
    path = write_good(tmp_path / "a.beton", tmp_path / "photos", write_mode="jpg", passthrough=1)
    done = look("check", path)
    assert done.returncode == 1
    assert "damaged: sample 1 " in done.stdout


@pytest.mark.parametrize("command", ["check", "info", "preview", "compare"])
@pytest.mark.parametrize("card", [True, False])
def test_a_beton_that_cannot_be_opened_is_a_user_error(copy, folder, command, card):
    if not card:
        card_path(copy).unlink()
    content = copy.read_bytes()
    rest = {"preview": [copy.parent / "o.png"], "compare": [folder]}.get(command, [])
    for damaged, words in (
        (content[:100], "it is truncated"),
        (content[:-30], "is not a complete .beton file"),
        (b"\7" + content[1:], "format version 7 instead of 2"),
        (content[:16] + bytes(8) + content[24:], "writing it was interrupted"),
        (content[:2106] + bytes(24 * 12) + content[2106 + 24 * 12 :], "metadata is zero: writing it was interrupted"),
    ):
        copy.write_bytes(damaged)
        done = look(command, copy, *rest)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


def test_damaged_tables_are_found_by_the_checksum_of_the_card(copy):
    content = bytearray(copy.read_bytes())
    content[2106 + 16] ^= 1  # the label of the first sample
    copy.write_bytes(content)
    done = look("check", copy)
    assert done.returncode == 2
    assert "the tables of" in done.stderr
    card_path(copy).unlink()
    assert look("check", copy).returncode == 0


def test_the_card_of_another_file_is_a_user_error(copy, tmp_path):
    make_folder(tmp_path / "more", SIZES + [(20, 20)])
    other = write_good(tmp_path / "c.beton", tmp_path / "more", write_mode="raw")
    shutil.copy(card_path(other), card_path(copy))
    done = look("check", copy)
    assert done.returncode == 2
    assert f"has {copy.stat().st_size} bytes, and its card" in done.stderr


@pytest.mark.parametrize("checksums", [[], {}, {"samples": "???", "index": 1}, {"samples": "AAAA", "index": 1}, 7])
def test_damaged_checksums_are_a_user_error(copy, checksums):
    card = json.loads(card_path(copy).read_text())
    card_path(copy).write_text(json.dumps(card | {"checksums": checksums}))
    done = look("check", copy)
    assert done.returncode == 2
    assert "checksums in" in done.stderr


@pytest.mark.parametrize("command", ["check", "info", "preview", "compare"])
def test_help_and_missing_files(command, tmp_path):
    done = look(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"write_dataset.py {command} FILE" in done.stdout
    rest = [tmp_path] if command == "compare" else []
    assert "there is no file" in look(command, tmp_path / "none.beton", *rest).stderr
    assert "a folder, not a .beton" in look(command, tmp_path, *rest).stderr


def test_info(made):
    done = look("info", made)
    assert (done.returncode, done.stderr) == (0, "")
    for words in (
        "FFCV format 2, 12 samples",
        "image (blocks_image), label (int); pages of 8 MiB",
        "jpg:        6 photos",
        "blocks:     6 photos",
        "2 (class_0: 6, class_1: 6)",
        "write_mode=proportion, max_resolution=60",
        "of every sample and of the tables",
        "SHA-256:",
    ):
        assert words in done.stdout
    widths = image_records(made)["width"]
    assert f"{widths.min()} to {widths.max()} pixels, median {np.median(widths):g}" in done.stdout


def test_info_without_a_card(copy):
    card_path(copy).unlink()
    done = look("info", copy)
    assert done.returncode == 0
    assert "card:       none" in done.stdout
    assert "2 (0: 6, 1: 6)" in done.stdout


def test_preview_shows_the_photos_in_their_places(made, tmp_path, monkeypatch):
    done = look("preview", made, tmp_path / "sheet.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert "12 samples" in done.stdout
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (2 * 146, 8 * 128, 3)
    sample = 9  # second row, second tile; it is 60 x 49 pixels or less
    tile = sheet[146 : 146 + 128, 128:256].astype(int)
    photo = draw(sample, *SIZES[sample])
    assert np.abs(tile[60:68, 60:68].mean((0, 1)) - photo[20:29, 23:32].mean((0, 1))).max() < 25
    assert (tile[:10] == 255).all()
    assert (sheet[128:146, :128] < 100).any()  # there is a label
    monkeypatch.chdir(tmp_path)
    assert look("preview", made).returncode == 0
    assert (tmp_path / "a.beton.png").read_bytes() == (tmp_path / "sheet.png").read_bytes()


def test_preview_marks_damaged_photos_and_takes_64_at_most(tmp_path):
    make_folder(tmp_path / "photos", [(16, 16)] * 70, classes=35)
    path = write_good(tmp_path / "a.beton", tmp_path / "photos", write_mode="raw")
    damage(path, [0], flip_bits)
    assert look("preview", path, tmp_path / "o.png").returncode == 0
    sheet = np.asarray(Image.open(tmp_path / "o.png"))
    assert sheet.shape == (8 * 146, 8 * 128, 3)
    assert (sheet[2, 2:126] == (255, 0, 0)).all()


def test_preview_never_overwrites_the_beton_or_fails_with_a_traceback(copy, tmp_path):
    content = copy.read_bytes()
    assert "is not the name of a PNG" in look("preview", copy, copy).stderr
    assert copy.read_bytes() == content
    assert "cannot write" in look("preview", copy, tmp_path / "nowhere" / "o.png").stderr


def test_compare_with_the_same_folder(made, folder):
    done = look("compare", made, folder)  # a copy: the folder may have moved
    assert (done.returncode, done.stderr) == (0, "")
    assert "no difference (12 photos encoded again and compared byte by byte)" in done.stdout


@pytest.mark.parametrize("mode", ["raw", "jpg", "smart"])
def test_compare_in_all_modes(folder, tmp_path, mode):
    path = write_good(tmp_path / "m.beton", folder, write_mode=mode, smart_threshold=8000, subset=11)
    assert look("compare", path, folder).returncode == 0


def test_compare_names_what_differs(copy, folder):
    Image.fromarray(draw(99, *SIZES[3])).save(folder / "class_0/003.png")
    Image.fromarray(draw(4, 20, 30)).save(folder / "class_0/004.png")
    (folder / "class_1/010.png").write_bytes(b"no photo")
    damage(copy, [8], flip_bits)
    done = look("compare", copy, folder)
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    expected = [
        "003.png: its pixels differ", "60 x 44 instead of", "008.png: it is damaged in the file",
        "010.png: it cannot be read", "4 differences",
    ]  # fmt: skip
    assert [words in line for words, line in zip(expected, lines, strict=True)] == [True] * 5


def test_compare_names_classes_and_counts_that_differ(made, folder):
    (folder / "class_0/000.png").unlink()
    (folder / "class_2").mkdir()
    shutil.copy(folder / "class_1/006.png", folder / "class_2/x.png")
    done = look("compare", made, folder)
    assert done.returncode == 1
    assert "class class_2 is only in the folder" in done.stdout
    assert "class class_0 has 6 photos, and 5 in the folder" in done.stdout
    assert "2 differences (6 photos encoded again" in done.stdout
    shutil.rmtree(folder / "class_1")
    assert "class class_1 is not in the folder" in look("compare", made, folder).stdout


def test_compare_knows_what_the_writer_left_out(folder, tmp_path):
    (folder / "class_0/002.png").write_bytes(b"no photo")
    path = write_good(tmp_path / "s.beton", folder, write_mode="proportion", on_error="skip")
    assert look("compare", path, folder).returncode == 0


class ManyPhotos:
    """A folder of so many photos that steps for each photo and each one left out would take minutes."""

    names = [f"new/c/{i}.png" for i in range(100_000)] + ["new/c/x: y.png", "new/c/x"]

    def __len__(self):
        return len(self.names)

    def name(self, i):
        return self.names[i]


def test_photos_that_were_left_out_are_found_by_name():
    skipped = [f"old/c/{i}.png: no photo: it is text" for i in range(0, 100_000, 20)]
    card = {"source": {"data_dir": "old/"}, "skipped": [*skipped, "old/c/x: y.png: no photo", "old/gone.png: empty"]}
    started = time.process_time()
    kept = _kept(card, ManyPhotos(), "new")
    assert time.process_time() - started < 5
    assert kept == [i for i in range(100_000) if i % 20] + [100_001]


def test_compare_without_a_card_or_with_other_versions_says_what_is_compared(copy, folder):
    card = json.loads(card_path(copy).read_text())
    card["versions"]["pillow"] = "1.0"
    card_path(copy).write_text(json.dumps(card))
    Image.fromarray(draw(99, *SIZES[3])).save(folder / "class_0/003.png")
    done = look("compare", copy, folder)
    assert done.returncode == 0
    assert "only classes, counts and sizes of 12 photos are compared: written with pillow 1.0" in done.stdout
    card_path(copy).unlink()
    Image.fromarray(draw(99, 30, 60)).save(folder / "class_0/003.png")
    done = look("compare", copy, folder)
    assert done.returncode == 1
    assert "there is no card" in done.stdout
    assert "class_0/003.png: its size is" in done.stdout
