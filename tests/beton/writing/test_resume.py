"""Interrupted writes, and what cfg.resume makes of them: the same bytes."""

import base64
import os
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beton.errors import UserError
from beton.format.card import card_path, card_text
from beton.sources.imagefolder import PhotoFolder, open_source
from beton.writing import options
from beton.writing.layout import Layout
from tests.support.betons import (
    DONE,
    LEFT,
    card_of,
    chosen_jpegs,
    files_in,
    payloads,
    sha256,
    write_cli,
    write_good,
    write_source,
)
from tests.support.photos import draw, make_folder
from tests.support.scripts import assert_user_error

SIZES = [(20 + i % 5, 24 + i % 7) for i in range(24)]
MODES = {
    "raw": {"write_mode": "raw"},
    "jpg": {"write_mode": "jpg"},
    "smart": {"write_mode": "smart", "smart_threshold": 1800},
    "blocks": {"write_mode": "blocks"},
    "proportion": {"write_mode": "proportion", "compress_probability": 0.4},
    "passthrough": {"write_mode": "jpg", "passthrough": True},
    "smart_blocks": {"write_mode": "smart", "smart_threshold": 1800, "rest": "blocks", "max_resolution": 22},
    "skip": {"write_mode": "proportion", "compress_probability": 0.4, "on_error": "skip"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """PNG and JPEG photos."""
    folder = tmp_path_factory.mktemp("photos")
    make_folder(folder, SIZES)
    for i in range(0, 24, 3):
        Image.fromarray(draw(i)).save(next(folder.glob(f"*/{i:03d}.png")).with_suffix(".jpg"))
    return folder


@pytest.fixture(scope="module")
def damaged(folder, tmp_path_factory):
    """As `folder`; four photos cannot be read, all of which were to become JPEGs or all not."""
    copy = shutil.copytree(folder, tmp_path_factory.mktemp("damaged") / "photos")
    jpegs = chosen_jpegs(32, share=MODES["skip"]["compress_probability"])
    photos = open_source(str(copy), "train")
    for i in [i for i in range(32) if jpegs[i]][1:9:2]:
        Path(photos.name(i)).write_bytes(b"no photo")
    return copy


def photos_of(mode, folder, damaged):
    return open_source(str(damaged if mode == "skip" else folder), "train")


class Interrupt(BaseException):
    """In place of Ctrl-C, at a moment that the test chooses."""


def write_part(source, path, photos, about=None, **options):
    """A write with resume that is interrupted once so many photos are stored or left out in this process."""
    left = [photos]

    def progress(count):
        left[0] -= count
        if left[0] == 0:
            raise Interrupt

    with pytest.raises(Interrupt):
        write_source(source, path, about=about, progress=progress, resume=True, **options)
    assert files_in(path.parent) == LEFT


def resumed(source, path, **options) -> int:
    """Resume a write and let it end; returns how many samples were taken over."""
    said = []
    card = write_source(source, path, resume=True, say=said.append, **options)
    assert files_in(path.parent) == DONE
    assert len(said) == 1
    assert said[0].startswith("resumed after" if card["resumed"] or card["skipped"] else "nothing to resume")
    return card["resumed"]


@pytest.mark.parametrize("mode", MODES)
def test_resumed_write_ends_with_the_same_bytes(folder, damaged, out, tmp_path, mode):
    source = photos_of(mode, folder, damaged)
    whole = write_source(source, tmp_path / "whole.beton", **MODES[mode])
    for photos in (1, 9, 32):
        write_part(source, out / "a.beton", photos, num_workers=3, chunk_size=2, **MODES[mode])
        before = resumed(source, out / "a.beton", num_workers=1, **MODES[mode])
        assert photos - 4 * (mode == "skip") <= before <= photos
        card = card_of(out / "a.beton")
        assert sha256(out / "a.beton") == card["sha256"] == whole["sha256"]
        about_photos = [
            "checksums",
            "skipped",
            "samples_per_class",
            "samples_per_mode",
            "bytes_per_mode",
            "passed_through",
        ]
        assert [card[key] for key in about_photos] == [whole[key] for key in about_photos]
        for name in DONE:
            (out / name).unlink()


def test_write_may_be_interrupted_again_and_again(damaged, out, tmp_path):
    source, options = open_source(str(damaged), "train"), MODES["skip"]
    whole = write_source(source, tmp_path / "whole.beton", **options)
    for more in range(3, 32, 3):
        write_part(source, out / "a.beton", more, **options)  # those taken over count too
    assert resumed(source, out / "a.beton", **options) == 26
    assert sha256(out / "a.beton") == whole["sha256"]


@pytest.mark.parametrize("stored_again", [0, 1])
def test_write_interrupted_while_photos_are_stored_again_goes_on(damaged, out, tmp_path, monkeypatch, stored_again):
    source, options = open_source(str(damaged), "train"), MODES["skip"]
    whole = write_source(source, tmp_path / "whole.beton", **options)
    place, again = Layout.place, []

    def place_some(self, encoded, crc32, name, sample=None):
        again.extend([sample] * (sample is not None))
        if len(again) > stored_again:
            raise Interrupt
        return place(self, encoded, crc32, name, sample)

    monkeypatch.setattr(Layout, "place", place_some)
    with pytest.raises(Interrupt):
        write_source(source, out / "a.beton", resume=True, **options)
    monkeypatch.undo()
    assert resumed(source, out / "a.beton", **options) == 28
    assert sha256(out / "a.beton") == whole["sha256"]


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def truncate(path, count):
    os.truncate(path, path.stat().st_size - count)


def add(path, data):
    path.write_bytes(path.read_bytes() + data)


def swap_lines(path):
    lines = path.read_bytes().splitlines(True)
    path.write_bytes(b"".join([*lines[:5], lines[6], lines[5], *lines[7:]]))


FIRST = -(-(24 + 2 * 1041 + 24 * 32) // 64) * 64  # the first payload, behind the tables
LEFTOVERS = {  # what happens to (journal, partial), and how many of 16 samples can be taken over then
    "nothing": (lambda journal, partial: None, 16),
    "payload truncated": (lambda journal, partial: truncate(partial, 1), 15),
    "bytes behind the last payload": (lambda journal, partial: add(partial, b"x" * 9000), 16),
    "first payload changed": (lambda journal, partial: flip(partial, FIRST), 0),
    "last payload changed": (lambda journal, partial: flip(partial, -5), 15),
    "payloads not on the disk": (lambda journal, partial: os.truncate(partial, 0), 0),
    "tables begun": (lambda journal, partial: [flip(partial, at) for at in (0, 30, 2500, FIRST - 1)], 16),
    "step truncated": (lambda journal, partial: truncate(journal, 5), 15),
    "line break missing": (lambda journal, partial: truncate(journal, 1), 15),
    "step changed": (lambda journal, partial: flip(journal, -8), 15),
    "steps swapped": (lambda journal, partial: swap_lines(journal), 4),
    "zeros behind the last step": (lambda journal, partial: add(journal, bytes(5000)), 16),
    "text behind the last step": (lambda journal, partial: add(journal, b"\xff\n12345678 {}\n"), 16),
    "first line changed": (lambda journal, partial: flip(journal, 20), 0),
    "no journal": (lambda journal, partial: journal.unlink(), 0),
    "journal of zeros": (lambda journal, partial: journal.write_bytes(bytes(3000)), 0),
    "empty journal": (lambda journal, partial: os.truncate(journal, 0), 0),
    "no partial file": (lambda journal, partial: partial.unlink(), 0),
}


@pytest.mark.parametrize("what", LEFTOVERS)
def test_leftovers_are_taken_over_as_far_as_they_are_whole(folder, out, tmp_path, what):
    source, options = open_source(str(folder), "train"), {"mode": "jpg"}
    whole = write_source(source, tmp_path / "whole.beton", **options)
    write_part(source, out / "a.beton", 16, **options)
    change, left = LEFTOVERS[what]
    change(*[out / name for name in LEFT])
    assert resumed(source, out / "a.beton", **options) == left
    assert sha256(out / "a.beton") == whole["sha256"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"jpeg_quality": 80}, ["cfg.jpeg_quality=90", "this one has 80"]),
        ({"write_mode": "raw"}, ["cfg.write_mode=jpg", "this one has raw"]),
        ({"max_resolution": 20}, ["cfg.max_resolution=None", "this one has 20"]),
        ({"subset": 20}, ["names and labels"]),
        ({"split": "val"}, ["source split=train", "val"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_interrupted_write_is_not_resumed_with_other_settings(folder, out, changed, words):
    given = {"write_mode": "jpg", "resume": 1}
    about = {"name": "imagenet", "data_dir": str(folder), "split": "train"}
    write_part(open_source(str(folder), "train"), out / "a.beton", 10, about, mode="jpg")
    before = [(out / name).read_bytes() for name in LEFT]
    done = write_cli(out / "a.beton", folder, **{**given, **changed})
    assert_user_error(done, "the interrupted write had", *words, "leave out cfg.resume to start over")
    assert [(out / name).read_bytes() for name in LEFT] == before
    done = write_cli(out / "a.beton", folder, **given)
    assert "=> resumed after 10 of 32 samples" in done.stdout
    assert card_of(out / "a.beton")["resumed"] == 10


def test_interrupted_write_is_not_resumed_by_other_versions(folder, out, monkeypatch):
    source = open_source(str(folder), "train")
    write_part(source, out / "a.beton", 10, mode="jpg")
    monkeypatch.setattr(options, "version", lambda name: "0.1")
    with pytest.raises(UserError, match="version of numpy=.* this one has 0.1"):
        write_source(source, out / "a.beton", "jpg", resume=True)
    assert files_in(out) == LEFT


CONTINUES = "with the same settings, cfg.resume=1 would have continued after them"
DISCARDED = f"10 samples of an interrupted write are discarded; {CONTINUES}"


def test_write_without_resume_starts_over(folder, out, tmp_path):
    source = open_source(str(folder), "train")
    write_part(source, out / "a.beton", 10, mode="jpg")
    said = []
    assert write_source(source, out / "a.beton", say=said.append)["resumed"] == 0
    assert said == [DISCARDED.replace("cfg.resume", "`resume`")]
    assert files_in(out) == DONE
    assert sha256(out / "a.beton") == write_source(source, tmp_path / "b.beton")["sha256"]


def test_write_without_resume_that_fails_removes_what_another_left(folder, damaged, out):
    write_part(open_source(str(folder), "train"), out / "a.beton", 10, mode="jpg")
    done = write_cli(out / "a.beton", damaged, write_mode="jpg")
    assert_user_error(done, "cannot read")
    assert done.stdout == f"=> {DISCARDED}\n"
    assert files_in(out) == []


def test_nothing_to_resume_is_said(folder, out):
    done = write_cli(out / "a.beton", folder, write_mode="jpg", resume=1)
    assert done.returncode == 0
    assert "=> nothing to resume, started anew" in done.stdout
    assert files_in(out) == DONE


def test_complete_file_is_left_as_it_is(damaged, out, monkeypatch):
    given = {"write_mode": "jpg", "on_error": "skip", "resume": 1}
    path = write_good(out / "a.beton", damaged, **given)
    before = [((out / name).stat().st_ino, (out / name).stat().st_mtime_ns) for name in DONE]
    monkeypatch.setattr(PhotoFolder, "read", None)  # no photo is read
    done = write_cli(path, damaged, num_workers=1, **{"chunk_size": 7, **given})
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout.splitlines()
    assert said[0] == f"=> {path} is complete already, nothing is written; its card says:"
    assert said[1].startswith(f"=> {path}: 28 photos")
    assert files_in(out) == DONE
    assert [((out / name).stat().st_ino, (out / name).stat().st_mtime_ns) for name in DONE] == before


def without_photos(path):
    (path.parents[1] / "photos/without").mkdir()


def without_identity(path):
    card = card_of(path)
    del card["identity"]
    card_path(path).write_text(card_text(card))


def truncated(path):
    os.truncate(path, path.stat().st_size - 24)


@pytest.mark.parametrize(
    ("changed", "change", "said"),
    [
        ({"jpeg_quality": 80}, None, "other settings (cfg.jpeg_quality=90): written anew"),
        ({"subset": 20}, None, "other settings (names and labels="),
        ({"empty_classes": "keep"}, without_photos, "other settings (other classes): written anew"),
        ({}, without_identity, "other settings (its card does not say which): written anew"),
        ({}, truncated, "nothing to resume, started anew"),
        ({}, lambda path: card_path(path).unlink(), "nothing to resume, started anew"),
    ],
    ids=["options", "photos", "classes", "old_card", "truncated", "no_card"],
)
def test_complete_file_is_written_anew_if_it_would_be_another(folder, out, changed, change, said):
    photos, given = shutil.copytree(folder, out.parent / "photos"), {"write_mode": "jpg", "resume": 1}
    path = write_good(out / "a.beton", photos, **given)
    if change:
        change(path)
    done = write_cli(path, photos, **given, **changed)
    assert said in done.stdout
    assert "is complete already" not in done.stdout
    assert files_in(out) == DONE
    assert sha256(path) == card_of(path)["sha256"]
    assert "is complete already" in write_cli(path, photos, **given, **changed).stdout


def test_file_that_leaves_photos_out_is_not_complete_where_none_may_be(damaged, out):
    path = write_good(out / "a.beton", damaged, write_mode="jpg", on_error="skip")
    done = write_cli(path, damaged, write_mode="jpg", resume=1)
    assert_user_error(done, "cannot read")
    assert "was written with other settings (cfg.on_error=skip, which left out 4): written anew" in done.stdout


def test_card_of_a_file_that_was_not_published_is_not_given_to_the_one_before(folder, out, tmp_path, monkeypatch):
    """Raw photos of the same sizes: the tables of both files are the same."""
    photos, given = shutil.copytree(folder, tmp_path / "photos"), {"write_mode": "raw", "resume": 1}
    write_good(out / "a.beton", photos, **given)
    Image.fromarray(draw(99, *SIZES[1])).save(photos / "class_0/001.png")

    def killed(*_):
        shutil.copytree(out, tmp_path / "killed")
        raise Interrupt

    with monkeypatch.context() as patch, pytest.raises(Interrupt):
        patch.setattr(os, "replace", killed)
        write_good(out / "a.beton", photos, write_mode="raw")
    path = tmp_path / "killed/a.beton"
    assert files_in(path.parent) == [*LEFT[:1], ".a.beton.json.partial", *LEFT[1:], "a.beton"]
    write_good(path, photos, **given)
    assert sha256(path) == card_of(path)["sha256"] == sha256(write_good(tmp_path / "new.beton", photos, **given))


def test_write_that_begins_while_another_publishes_finishes_for_it(folder, out, monkeypatch):
    source, replace, said = open_source(str(folder), "train"), os.replace, []

    def meanwhile(*names):
        replace(*names)
        monkeypatch.setattr(os, "replace", replace)
        write_source(source, out / "a.beton", "jpg", resume=True, say=said.append)

    monkeypatch.setattr(os, "replace", meanwhile)
    card = write_source(source, out / "a.beton", "jpg")
    assert "is complete already" in said[0]
    assert files_in(out) == DONE
    assert sha256(out / "a.beton") == card_of(out / "a.beton")["sha256"] == card["sha256"]


def test_card_and_names_are_on_the_disk_before_the_journal_goes(folder, out, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append((os.readlink(f"/proc/self/fd/{fd}"), files_in(out))))
    write_good(out / "a.beton", folder)
    card = ".a.beton.json.partial"
    assert synced == [
        (str(out / LEFT[1]), LEFT),
        (str(out / card), sorted([*LEFT, card])),
        (str(out), [LEFT[0], *DONE]),
    ]


def test_photo_that_stops_a_write_may_be_corrected_or_left_out(folder, out, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "photos")
    bad = copy / "class_1" / "015.jpg"
    good = bad.read_bytes()
    given = {"write_mode": "jpg", "num_workers": 1, "chunk_size": 1, "resume": 1}
    bad.write_bytes(b"no photo")
    done = write_cli(out / "a.beton", copy, **given)
    assert_user_error(done, "cannot read", "015.jpg")
    assert "samples are kept: cfg.resume=1 continues after them" in done.stdout
    assert files_in(out) == LEFT
    # Left out, but that write is interrupted too
    about = {"name": "imagenet", "data_dir": str(copy), "split": "train"}
    source = open_source(str(copy), "train")
    write_part(source, out / "a.beton", 25, about, mode="jpg", num_workers=1, on_error="skip")
    # With errors raised again, nothing from that photo on is taken over
    bad.write_bytes(good)
    index = [open_source(str(copy), "train").name(i) for i in range(32)].index(str(bad))
    assert f"=> resumed after {index} of 32" in write_cli(out / "a.beton", copy, **given).stdout
    assert card_of(out / "a.beton")["skipped"] == []
    assert sha256(out / "a.beton") == sha256(write_good(tmp_path / "whole.beton", copy, write_mode="jpg"))


@pytest.mark.parametrize("resume", [True, False])
def test_second_writer_is_refused_and_the_first_continues(folder, out, resume):
    source, seen = open_source(str(folder), "train"), []

    def meanwhile(count):
        with pytest.raises(UserError, match="is being written by another process") as caught:
            write_source(source, out / "a.beton", "jpg", resume=resume)
        seen.append(caught.value)

    card = write_source(source, out / "a.beton", "jpg", progress=meanwhile, num_workers=1, resume=True)
    assert len(seen) == 32
    assert files_in(out) == DONE
    assert sha256(out / "a.beton") == card["sha256"]


def test_checksums_in_the_card_are_those_of_the_file(damaged, out):
    path = write_good(out / "a.beton", damaged, **MODES["skip"])
    card, content = card_of(path), path.read_bytes()
    checksums = card["checksums"]
    crc32s = np.frombuffer(base64.b64decode(checksums["samples"]), "<u4")
    assert crc32s.tolist() == [zlib.crc32(payload) for payload in payloads(path)]
    tables = 24 + 2 * 1041 + 24 * card["num_samples"], int.from_bytes(content[16:24], "little")
    assert checksums["index"] == zlib.crc32(content[: tables[0]] + content[tables[1] :])
