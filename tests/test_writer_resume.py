"""Writes that are killed, interrupted or out of disk, and what cfg.resume makes of them: the same bytes."""

import base64
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT, assert_user_error
from PIL import Image
from writing import Writes, draw, files_in, make_folder, payloads, sha256, write_cli, write_good

from pipelines import writer
from pipelines.beton import card_path, card_text, read_card, read_index
from pipelines.errors import UserError
from pipelines.layout import Layout
from pipelines.sources.imagefolder import PhotoFolder, open_source
from pipelines.writer import WriteOptions, write

SIZES = [(20 + i % 5, 24 + i % 7) for i in range(24)]
LEFT = [".a.beton.journal", ".a.beton.partial"]
DONE = ["a.beton", "a.beton.json"]
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
    jpegs = writer.choose_jpegs(32, WriteOptions(**MODES["skip"]))
    photos = open_source(str(copy), "train")
    for i in [i for i in range(32) if jpegs[i]][1:9:2]:
        photos_path = photos.name(i)
        with open(photos_path, "wb") as file:
            file.write(b"no photo")
    return copy


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture(scope="module")
def writes(tmp_path_factory):
    writes = Writes(tmp_path_factory.mktemp("printed"))
    yield writes
    writes.close()


def photos_of(mode, folder, damaged):
    return open_source(str(damaged if mode == "skip" else folder), "train")


class Interrupt(BaseException):
    """In place of Ctrl-C, at a moment that the test chooses."""


def write_part(source, path, options, photos, about=None):
    """A write with resume that is interrupted once so many photos are stored or left out in this process."""
    left = [photos]

    def progress(count):
        left[0] -= count
        if left[0] == 0:
            raise Interrupt

    with pytest.raises(Interrupt):
        write(source, path, options, about or {}, progress, resume=True)
    assert files_in(path.parent) == LEFT


def resumed(source, path, options, about=None) -> int:
    """Go on with a write to its end; returns how many samples were taken over."""
    said = []
    card = write(source, path, options, about or {}, resume=True, say=said.append)
    assert files_in(path.parent) == DONE
    assert len(said) == 1
    assert said[0].startswith("went on after" if card["resumed"] or card["skipped"] else "nothing to resume")
    return card["resumed"]


@pytest.mark.parametrize("mode", MODES)
def test_interrupted_write_goes_on_to_the_same_bytes(folder, damaged, out, tmp_path, mode):
    source = photos_of(mode, folder, damaged)
    whole = write(source, tmp_path / "whole.beton", WriteOptions(num_workers=2, **MODES[mode]), {})
    for photos in (1, 9, 32):
        write_part(source, out / "a.beton", WriteOptions(num_workers=3, chunk_size=2, **MODES[mode]), photos)
        before = resumed(source, out / "a.beton", WriteOptions(num_workers=1, **MODES[mode]))
        assert photos - 4 * (mode == "skip") <= before <= photos
        card = read_card(out / "a.beton")
        assert sha256(out / "a.beton") == card["sha256"] == whole["sha256"]
        for key in (
            "checksums",
            "skipped",
            "samples_per_class",
            "samples_per_mode",
            "bytes_per_mode",
            "passed_through",
        ):
            assert card[key] == whole[key]
        for name in DONE:
            (out / name).unlink()


def test_write_may_be_interrupted_again_and_again(damaged, out, tmp_path):
    source, options = open_source(str(damaged), "train"), WriteOptions(num_workers=2, **MODES["skip"])
    whole = write(source, tmp_path / "whole.beton", options, {})
    for more in range(3, 32, 3):
        write_part(source, out / "a.beton", options, more)  # those taken over count too
    assert resumed(source, out / "a.beton", options) == 26
    assert sha256(out / "a.beton") == whole["sha256"]


@pytest.mark.parametrize("stored_again", [0, 1])
def test_write_interrupted_while_photos_are_stored_again_goes_on(damaged, out, tmp_path, monkeypatch, stored_again):
    source, options = open_source(str(damaged), "train"), WriteOptions(num_workers=2, **MODES["skip"])
    whole = write(source, tmp_path / "whole.beton", options, {})
    place, again = Layout.place, []

    def place_some(self, encoded, label, name, sample=None):
        again.extend([sample] * (sample is not None))
        if len(again) > stored_again:
            raise Interrupt
        return place(self, encoded, label, name, sample)

    monkeypatch.setattr(Layout, "place", place_some)
    with pytest.raises(Interrupt):
        write(source, out / "a.beton", options, {}, resume=True)
    monkeypatch.undo()
    assert resumed(source, out / "a.beton", options) == 28
    assert sha256(out / "a.beton") == whole["sha256"]


def flip(path, at):
    with open(path, "rb+") as file:
        file.seek(at, os.SEEK_SET if at >= 0 else os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))


def cut(path, count):
    os.truncate(path, path.stat().st_size - count)


def add(path, data):
    with open(path, "ab") as file:
        file.write(data)


def swap_lines(path):
    lines = path.read_bytes().splitlines(True)
    path.write_bytes(b"".join([*lines[:5], lines[6], lines[5], *lines[7:]]))


FIRST = 8 << 20  # the first payload
LEFTOVERS = {  # what happens to (journal, partial), and how many of 16 samples can be taken over then
    "nothing": (lambda journal, partial: None, 16),
    "payload cut off": (lambda journal, partial: cut(partial, 1), 15),
    "bytes behind the last payload": (lambda journal, partial: add(partial, b"x" * 9000), 16),
    "first payload changed": (lambda journal, partial: flip(partial, FIRST), 0),
    "last payload changed": (lambda journal, partial: flip(partial, -5), 15),
    "payloads not on the disk": (lambda journal, partial: os.truncate(partial, 0), 0),
    "tables begun": (lambda journal, partial: [flip(partial, at) for at in (0, 30, 2500, FIRST - 1)], 16),
    "step cut off": (lambda journal, partial: cut(journal, 5), 15),
    "line break cut off": (lambda journal, partial: cut(journal, 1), 15),
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
    source, options = open_source(str(folder), "train"), WriteOptions("jpg", num_workers=2)
    whole = write(source, tmp_path / "whole.beton", options, {})
    write_part(source, out / "a.beton", options, 16)
    change, left = LEFTOVERS[what]
    change(*[out / name for name in LEFT])
    assert resumed(source, out / "a.beton", options) == left
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
def test_interrupted_write_is_not_gone_on_with_otherwise(folder, out, changed, words):
    given = {"write_mode": "jpg", "resume": 1}
    about = {"name": "imagenet", "data_dir": str(folder), "split": "train"}
    write_part(open_source(str(folder), "train"), out / "a.beton", WriteOptions("jpg"), 10, about)
    before = [(out / name).read_bytes() for name in LEFT]
    done = write_cli(out / "a.beton", folder, **{**given, **changed})
    assert_user_error(done, "the interrupted write had", *words, "leave out cfg.resume to start over")
    assert [(out / name).read_bytes() for name in LEFT] == before
    done = write_cli(out / "a.beton", folder, **given)
    assert "=> went on after 10 of 32 photos" in done.stdout
    assert read_card(out / "a.beton")["resumed"] == 10


def test_interrupted_write_is_not_gone_on_with_by_other_versions(folder, out, monkeypatch):
    source = open_source(str(folder), "train")
    write_part(source, out / "a.beton", WriteOptions("jpg"), 10)
    monkeypatch.setattr(writer, "version", lambda name: "0.1")
    with pytest.raises(UserError, match="version of numpy=.* this one has 0.1"):
        write(source, out / "a.beton", WriteOptions("jpg"), {}, resume=True)
    assert files_in(out) == LEFT


GOES_ON = "with the same settings, cfg.resume=1 would have gone on after them"
DISCARDED = f"10 photos of an interrupted write are discarded; {GOES_ON}"


def test_write_without_resume_starts_over(folder, out, tmp_path):
    source, options = open_source(str(folder), "train"), WriteOptions("raw")
    write_part(source, out / "a.beton", WriteOptions("jpg"), 10)
    said = []
    assert write(source, out / "a.beton", options, {}, say=said.append)["resumed"] == 0
    assert said == [DISCARDED]
    assert files_in(out) == DONE
    assert sha256(out / "a.beton") == write(source, tmp_path / "b.beton", options, {})["sha256"]


def test_write_without_resume_that_fails_removes_what_another_left(folder, damaged, out):
    write_part(open_source(str(folder), "train"), out / "a.beton", WriteOptions("jpg"), 10)
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


def without_identity(path):
    card = read_card(path)
    del card["identity"]
    card_path(path).write_text(card_text(card))


def cut_off(path):
    os.truncate(path, path.stat().st_size - 24)


@pytest.mark.parametrize(
    ("changed", "change", "said"),
    [
        ({"jpeg_quality": 80}, None, "other settings (cfg.jpeg_quality=90): written anew"),
        ({"subset": 20}, None, "other settings (names and labels="),
        ({}, lambda path: (path.parents[1] / "photos/without").mkdir(), "other settings (other classes): written anew"),
        ({}, without_identity, "other settings (its card does not say which): written anew"),
        ({}, cut_off, "nothing to resume, started anew"),
        ({}, lambda path: card_path(path).unlink(), "nothing to resume, started anew"),
    ],
    ids=["options", "photos", "classes", "old_card", "cut_off", "no_card"],
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
    assert sha256(path) == read_card(path)["sha256"]
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
    assert sha256(path) == read_card(path)["sha256"] == sha256(write_good(tmp_path / "new.beton", photos, **given))


def test_write_that_begins_while_another_publishes_finishes_for_it(folder, out, monkeypatch):
    source, options, replace, said = open_source(str(folder), "train"), WriteOptions("jpg"), os.replace, []

    def meanwhile(*names):
        replace(*names)
        monkeypatch.setattr(os, "replace", replace)
        write(source, out / "a.beton", options, {}, resume=True, say=said.append)

    monkeypatch.setattr(os, "replace", meanwhile)
    card = write(source, out / "a.beton", options, {})
    assert "is complete already" in said[0]
    assert files_in(out) == DONE
    assert sha256(out / "a.beton") == read_card(out / "a.beton")["sha256"] == card["sha256"]


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


def test_photo_that_stops_a_write_may_be_mended_or_left_out(folder, out, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "photos")
    bad = copy / "class_1" / "015.jpg"
    good = bad.read_bytes()
    given = {"write_mode": "jpg", "num_workers": 1, "chunk_size": 1, "resume": 1}
    bad.write_bytes(b"no photo")
    done = write_cli(out / "a.beton", copy, **given)
    assert_user_error(done, "cannot read", "015.jpg")
    assert "photos are kept: cfg.resume=1 goes on after them" in done.stdout
    assert files_in(out) == LEFT
    # Left out, but that write is interrupted too
    about = {"name": "imagenet", "data_dir": str(copy), "split": "train"}
    options = WriteOptions("jpg", num_workers=1, on_error="skip")
    write_part(open_source(str(copy), "train"), out / "a.beton", options, 25, about)
    # With errors raised again, nothing from that photo on is taken over
    bad.write_bytes(good)
    index = [open_source(str(copy), "train").name(i) for i in range(32)].index(str(bad))
    assert f"=> went on after {index} of 32" in write_cli(out / "a.beton", copy, **given).stdout
    assert read_card(out / "a.beton")["skipped"] == []
    assert sha256(out / "a.beton") == sha256(write_good(tmp_path / "whole.beton", copy, write_mode="jpg"))


def test_second_writer_does_not_take_over_from_one_that_runs(folder, out):
    source, options, seen = open_source(str(folder), "train"), WriteOptions("jpg", num_workers=1), []

    def meanwhile(count):
        with pytest.raises(UserError, match="is being written by another process") as caught:
            write(source, out / "a.beton", options, {}, resume=True)
        seen.append(caught.value)

    card = write(source, out / "a.beton", options, {}, meanwhile, resume=True)
    assert len(seen) == 32
    assert files_in(out) == DONE
    assert sha256(out / "a.beton") == card["sha256"]


def test_checksums_in_the_card_are_those_of_the_file(damaged, out):
    path = write_good(out / "a.beton", damaged, **MODES["skip"])
    checksums, index, content = read_card(path)["checksums"], read_index(path), path.read_bytes()
    crc32s = np.frombuffer(base64.b64decode(checksums["samples"]), "<u4")
    assert crc32s.tolist() == [zlib.crc32(payload) for payload in payloads(path)]
    tables = 24 + 2 * 1041 + 24 * index.num_samples, int.from_bytes(content[16:24], "little")
    assert checksums["index"] == zlib.crc32(content[: tables[0]] + content[tables[1] :])


# In processes of their own


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """150 photos, five of which cannot be read: a write takes a good part of a second."""
    folder = tmp_path_factory.mktemp("many")
    make_folder(folder, [(100 + i % 9, 130 + i % 5) for i in range(150)])
    for i in range(20, 150, 30):
        next(folder.glob(f"*/{i:03d}.png")).write_bytes(b"no photo")
    return folder


def check_killed(writes, out, reference, data_dir, **cfg) -> bool:
    """After a kill: no .beton or a whole one, and cfg.resume ends with the same bytes. Says if it had to go on."""
    path = out / "a.beton"
    published = path.exists() and path.stat().st_ino
    assert not published or sha256(path) == reference
    done = writes.run(path, data_dir, **{**cfg, "resume": 1})
    assert done.returncode == 0, done.stderr
    assert not published or (path.stat().st_ino == published and "is complete already" in done.stdout)
    assert files_in(out) == DONE
    assert sha256(path) == read_card(path)["sha256"] == reference
    for name in DONE:
        (out / name).unlink()
    return "=> went on after" in done.stdout


def wait_for_steps(out, size):
    """Until the journal has so many bytes, or the write is at its end."""
    deadline = time.monotonic() + 100
    while not (out / "a.beton").exists():
        with contextlib.suppress(FileNotFoundError):
            if (out / LEFT[0]).stat().st_size >= size:
                return
        assert time.monotonic() < deadline
        time.sleep(0.0005)


@pytest.mark.parametrize("kills", [8, pytest.param(50, marks=pytest.mark.slow)])
def test_sigkill_at_random_moments(writes, many, out, tmp_path, kills):
    given = MODES["skip"]
    assert writes.run(tmp_path / "whole.beton", many, **given).returncode == 0
    reference, seconds = sha256(tmp_path / "whole.beton"), read_card(tmp_path / "whole.beton")["seconds"]
    draws, went_on, killed = random.Random(kills), 0, 0
    for number in range(kills):
        writes.start(out / "a.beton", many, **given)
        if number % 3 == 0:
            time.sleep(draws.uniform(0, seconds + 0.02))
        else:
            wait_for_steps(out, draws.uniform(0, 7500))  # about all that a whole write notes
        killed += writes.kill(signal.SIGKILL).returncode == -signal.SIGKILL
        went_on += check_killed(writes, out, reference, many, **given)
    print(f"{kills} writes of {seconds:.2f} s: {killed} killed before their end, {went_on} of them gone on with")
    assert killed >= kills // 2
    assert went_on >= kills // 8


KILLED_AT = """
import os, pathlib, signal
from pipelines import beton, journal, layout
calls = [0]

def fatal(function):
    def call(*args, **kwargs):
        calls[0] += 1
        if calls[0] == {number}:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call

for holder, names in ((journal.Journal, "add cut close"), (layout.Layout, "place cut finish"),
                      (os, "replace fsync"), (pathlib.Path, "unlink"), (beton, "card_text")):
    for name in names.split():
        setattr(holder, name, fatal(getattr(holder, name)))
"""


def test_sigkill_before_every_step(writes, out, tmp_path):
    """Between a payload and its step in the journal, between tables and publication, between file and card, ..."""
    make_folder(tmp_path / "photos", SIZES[:4])
    given = {"write_mode": "jpg"}
    reference = sha256(write_good(tmp_path / "whole.beton", tmp_path / "photos", **given))
    for number in range(1, 100):
        done = writes.run(out / "a.beton", tmp_path / "photos", before=KILLED_AT.format(number=number), **given)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        check_killed(writes, out, reference, tmp_path / "photos", **given)
    assert number > 15


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_interrupted_write_leaves_what_resume_needs(writes, many, out, tmp_path, number, status):
    given = {"write_mode": "raw", "on_error": "skip", "resume": 1}
    reference = sha256(write_good(tmp_path / "whole.beton", many, **given))
    # Slow, so that the signal comes before the end
    slow = "import time; from pipelines import writer; place = writer.Layout.place\n"
    slow += "writer.Layout.place = lambda *args: (time.sleep(0.01), place(*args))[1]"
    writes.start(out / "a.beton", many, before=slow, **given)
    wait_for_steps(out, 3000)
    started = time.monotonic()
    done = writes.kill(number)
    assert done.returncode == status
    assert time.monotonic() - started < 5
    assert files_in(out) == LEFT
    assert ("photos are kept: cfg.resume=1" in done.stdout) == (number != signal.SIGKILL)
    assert check_killed(writes, out, reference, many, **{**given, "num_workers": 1})


FULL = """
import os, subprocess, sys
folder, *argv = sys.argv[1:]
mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
if subprocess.run(mount, capture_output=True).returncode:
    sys.exit(77)
import write_dataset
from runtime.config import run

def write(*more):  # in a process of its own
    pid = os.fork()
    if pid == 0:
        os.dup2(1, 2)
        sys.argv, code = ["write_dataset.py", *argv, *more], 0
        try:
            run(write_dataset.main)
        except SystemExit as end:
            code = end.code
        sys.stdout.flush()
        os._exit(code)
    print("\\n", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), sorted(os.listdir(folder)), flush=True)

write("--cfg.resume=0")
write("--cfg.resume=1")
subprocess.run(["mount", "-o", "remount,size=100m", folder], check=True)
write("--cfg.resume=1", "--cfg.num_workers=3")
subprocess.run(["sha256sum", folder + "/a.beton"])
"""


def test_full_disk(out, tmp_path):
    """A disk of 1 MB, which grows once it has been full."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare to mount a small disk with")
    given = {"dataset": "generated", "split": "train", "write_mode": "jpg", "subset": 40, "chunk_size": 2}
    argv = [*(f"--cfg.{name}={value}" for name, value in given.items()), f"--cfg.write_path={out}/a.beton"]
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", FULL, out, *argv],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=250,
    )
    if done.returncode == 77 or done.stderr.startswith("unshare:"):
        pytest.skip("no disk can be mounted here")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    ends = [lines.index(f" {status} {left}") for status, left in ((2, []), (2, LEFT), (0, DONE))]
    full = f"error: cannot write {out}/a.beton (No space left on device); check the folder and its disk"
    assert full in lines[: ends[0]]
    assert full in lines[ends[0] : ends[1]]
    assert any("=> went on after" in line for line in lines[ends[1] : ends[2]])
    assert sha256(write_good(tmp_path / "whole.beton", **given)) in lines[-1]
