"""Photos that cannot be read, writes that are killed, disks that are full, options that make no sense."""

import contextlib
import errno
import json
import os
import signal
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, features

from beton import system
from beton.errors import UserError
from beton.format.file import BetonFile
from beton.format.photo_files import UNREADABLE, to_rgb
from beton.writing import transaction, writer
from tests.support import hooks
from tests.support.betons import (
    DONE,
    LEFT,
    card_of,
    files_in,
    sha256,
    stored_photos,
    write_cli,
    write_good,
    write_options,
    write_source,
)
from tests.support.loaders import within
from tests.support.photos import Source, draw, encoded, make_folder
from tests.support.scripts import Forked, assert_user_error, forked, run_main

JPEG = encoded(draw(0), "JPEG")
AVIF = encoded(draw(0), "AVIF") if features.check("avif") else b""  # Pillow 11.3 and newer
DAMAGED = {
    "text.jpg": b"this is no photo\n",
    "truncated.jpg": JPEG[: len(JPEG) // 2],
    "empty.jpg": b"",
    "broken.webp": AVIF.replace(b"iloc", b"none"),  # Pillow raises RuntimeError (without AVIF it is an empty file)
}


def small_photos(count, before=lambda i: None, label=0):
    """A source of small raw photos, all of one class."""
    photos = [np.full((8, 8, 3), i % 256, np.uint8) for i in range(count)]
    source = Source(photos, before, [label] * count)
    source.classes = ["only"]
    return source


def count_in(path) -> int:
    with BetonFile(path) as file:
        return len(file)


@pytest.fixture
def folder(tmp_path):
    make_folder(tmp_path / "photos", [(30, 40)] * 8)
    return tmp_path / "photos"


@pytest.mark.parametrize("name", DAMAGED)
def test_unreadable_photo_is_named_and_nothing_is_left(folder, out, name):
    (folder / "class_1" / name).write_bytes(DAMAGED[name])
    done = write_cli(out / "a.beton", folder, write_mode="raw")
    assert_user_error(done, f"cannot read {folder}/class_1/{name} (", "on_error=skip")
    assert files_in(out) == []


def test_unreadable_photos_can_be_left_out(folder, out):
    for name, content in DAMAGED.items():
        (folder / "class_0" / name).write_bytes(content)
    done = write_cli(out / "a.beton", folder, write_mode="raw", on_error="skip")
    assert done.returncode == 0
    assert "left out: 4 photos" in done.stdout
    card = card_of(out / "a.beton")
    assert sorted(line.split(":")[0] for line in card["skipped"]) == sorted(f"{folder}/class_0/{n}" for n in DAMAGED)
    assert card["samples_per_class"] == {"class_0": 4, "class_1": 4}
    for i, photo in enumerate(stored_photos(out / "a.beton")):
        np.testing.assert_array_equal(photo, draw(i, 30, 40))


@pytest.mark.parametrize("mode", ["raw", "proportion"])
def test_only_unreadable_photos_is_an_error(folder, out, mode):
    for photo in folder.glob("*/*"):
        photo.write_bytes(b"")
    assert_user_error(write_cli(out / "a.beton", folder, write_mode=mode, on_error="skip"), "none of the samples")
    assert files_in(out) == []


def test_what_pillow_raises_for_damaged_files_is_expected():
    rng = np.random.default_rng(0)
    for content in (JPEG, *filter(None, [AVIF]), *(encoded(draw(0), kind) for kind in ("PNG", "WEBP", "GIF", "BMP"))):
        for _ in range(40):
            damaged = bytearray(content)
            for at in rng.integers(0, rng.choice((64, len(content))), 6):
                damaged[at] = rng.integers(256)
            with contextlib.suppress(UNREADABLE):
                assert to_rgb(bytes(damaged)).mode == "RGB"


def test_threads_are_gone_when_the_error_arrives(out):
    with pytest.raises(UserError) as caught:
        write_source(small_photos(200, lambda i: i == 3 and fail()), out / "a.beton", chunk_size=2)
    # While the error, and with it every frame that it came through, is still held
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("beton-writer")], caught


def fail():
    raise OSError(errno.EIO, "the disk is broken")


def test_error_is_raised_at_once_though_a_photo_before_it_hangs(out):
    hangs = threading.Event()

    def before(i):
        if i == 0:
            hangs.wait()
        if i == 12:
            fail()

    source = small_photos(80, before)
    try:
        with pytest.raises(UserError, match="cannot read photo 12"):
            within(60, lambda: write_source(source, out / "a.beton", chunk_size=5))
        assert files_in(out) == []
    finally:
        hangs.set()


def raising(error):
    def on_read(i):
        if i == 5:
            raise error

    return on_read


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "not enough memory for photo 5; set a smaller `workers`"),
        (KeyError("size"), r"cannot store photo 5 .KeyError: 'size', test_failures.py line \d+.; correct"),
        (ZeroDivisionError("division"), "cannot store photo 5 .ZeroDivisionError: division"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_exception_in_a_thread_names_the_photo(out, error, words, on_error):
    with pytest.raises(UserError, match=words):
        write_source(small_photos(20, raising(error)), out / "a.beton", num_workers=16, on_error=on_error)
    assert files_in(out) == []


def test_thread_that_exits_ends_the_write(out):
    with pytest.raises(SystemExit):
        write_source(small_photos(20, raising(SystemExit(7))), out / "a.beton")
    assert files_in(out) == []


@pytest.mark.parametrize("mode", ["raw", "jpg", "blocks"])
@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.zeros((8, 8), np.uint8), "the source gives uint8 .8, 8. instead of"),
        (np.zeros((8, 8, 1), np.uint8), "uint8 .8, 8, 1."),
        (np.zeros((8, 8, 4), np.uint8), "uint8 .8, 8, 4."),
        (np.zeros((8, 8, 3), np.float32), "float32 .8, 8, 3."),
        (np.zeros((0, 8, 3), np.uint8), "it has no pixels"),
        ("text", "the source gives str"),
        (np.zeros((65536, 1, 3), np.uint8), "a side is longer than 65535 pixels"),
    ],
    ids=["grey", "one_channel", "rgba", "float", "empty", "text", "long"],
)
def test_pixels_that_cannot_be_stored_are_an_error(out, pixels, words, mode):
    with pytest.raises(UserError, match=f"cannot read photo 3 .*{words}"):
        write_source(small_photos(5, lambda i: pixels if i == 3 else None), out / "a.beton", mode)
    assert files_in(out) == []


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize(
    ("label", "words"),
    [
        (-1, "the label of photo 0 is -1, not one of 0 to 0"),
        (1, "the label of photo 0 is 1, not one of 0 to 0"),
        (1.5, "cannot store photo 0 .label: 1.5 is not a whole number"),
        (None, "cannot store photo 0 .label: None is not a whole number"),
        ("cat", "cannot store photo 0 .label: 'cat' is not a whole number"),
        (2**70, "cannot store photo 0 .label: 1180591620717411303424 has more than 64 bits"),
    ],
)
def test_label_that_is_no_class_is_an_error(out, label, words, on_error):
    """It is no damage of a file, so it is not left out."""
    with pytest.raises(UserError, match=words):
        write_source(small_photos(5, label=label), out / "a.beton", num_workers=1, on_error=on_error)
    assert files_in(out) == []


@pytest.mark.parametrize(("shape", "mode"), [((65535, 2), "raw"), ((2, 65535), "blocks"), ((2, 65500), "jpg")])
def test_longest_photos_that_can_be_stored(out, shape, mode):
    photo = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    write_source(small_photos(1, lambda i: photo), out / "a.beton", mode)
    (stored,) = stored_photos(out / "a.beton")
    assert stored.shape == photo.shape
    assert mode != "raw" or (stored == photo).all()


@pytest.mark.parametrize(("width", "mode", "limit"), [(65536, "raw", 65535), (65501, "jpg", 65500)])
def test_photo_file_with_too_long_a_side_is_one_line(folder, out, width, mode, limit):
    Image.new("RGB", (width, 2)).save(folder / "class_1" / "long.png")
    done = write_cli(out / "a.beton", folder, write_mode=mode)
    assert_user_error(done, f"{folder}/class_1/long.png (a side is longer than {limit} pixels", "on_error=skip")
    assert files_in(out) == []
    write_good(out / "a.beton", folder, write_mode=mode, on_error="skip")
    write_good(out / "a.beton", folder, write_mode=mode, max_resolution=500)
    assert count_in(out / "a.beton") == 9


def test_names_of_the_fields_differ_where_ffcv_truncates_them(folder, out):
    """Ours are fixed; two with the same first 16 characters are one field for FFCV."""
    with BetonFile(write_good(out / "a.beton", folder)) as file:
        names = list(file.fields)
    assert len({name[:16] for name in names}) == len(names) == 2


def test_threads_that_cannot_be_started_are_one_line(folder, out, monkeypatch):
    def start(self):
        if self.name == "beton-writer-5":
            raise RuntimeError("can't start new thread")
        real(self)

    real = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", start)
    assert_user_error(write_cli(out / "a.beton", folder, num_workers=1000), "cannot start 8 threads", "cfg.num_workers")
    assert files_in(out) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("beton-writer")]


def test_write_that_takes_no_time_is_reported(folder, out, monkeypatch):
    monkeypatch.setattr(writer, "time", SimpleNamespace(monotonic=lambda: 1.0))
    assert "images/s" in write_cli(out / "a.beton", folder).stdout


@pytest.mark.parametrize("outcome", ["published", "removed"])
def test_writer_that_ends_while_another_begins_is_left_alone(out, monkeypatch, outcome):
    """The other process publishes or removes the file between our opening and our locking of it."""
    first = write_good(out / "first.beton", dataset="generated", subset=2)
    content = first.read_bytes()

    def lock(file):
        partial = out / ".a.beton.partial"
        if outcome == "removed":
            partial.unlink()
        else:
            partial.write_bytes(content)
            partial.rename(out / "a.beton")
        return True

    monkeypatch.setattr(system, "lock", lock)
    with pytest.raises(UserError, match="is being written by another process"):
        write_source(small_photos(5), out / "a.beton")
    assert outcome == "removed" or (out / "a.beton").read_bytes() == content


def start(path, hook=None, threads=40, **cfg) -> Forked:
    """A write of 4,000 generated photos (a minute and more) under way: its threads tell that photos are being read."""
    cfg = {"dataset": "generated", "subset": 4000, "num_workers": 40, **cfg}
    process = Forked(path.parent.parent / "printed", run_main, "write_dataset.py", write_options(path, **cfg), hook)
    tasks = f"/proc/{process.pid}/task"
    process.wait_for(lambda: path.with_name(f".{path.name}.partial").exists() and len(os.listdir(tasks)) > threads)
    return process


def end(process, number) -> int:
    """Send a signal; the status. The process leaves no other behind."""
    try:
        process.kill(number)
        status = process.end(60)
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
        return status
    finally:
        process.stop()


def test_killed_write_leaves_no_beton_and_the_next_one_succeeds(out):
    path = out / "a.beton"
    assert end(start(path), signal.SIGKILL) == -signal.SIGKILL
    assert files_in(out) == LEFT
    write_good(path, dataset="generated", subset=5, write_mode="raw")
    undisturbed = write_good(out / "b.beton", dataset="generated", subset=5, write_mode="raw")
    assert sha256(path) == sha256(undisturbed)
    assert files_in(out) == [*DONE, "b.beton", "b.beton.json"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_interrupted_write_ends_soon_and_leaves_nothing(out, number, status):
    # All photos are with the 40 threads: none of them may go on to its last one
    process = start(out / "a.beton")
    assert end(process, number) == status
    assert files_in(out) == []
    said = [line for line in process.errors.splitlines() if line.strip() and "images" not in line]  # all but the bar
    assert said == (["interrupted"] if status == 130 else [])


def test_signal_ends_a_write_of_which_a_thread_hangs(folder, out):
    """It reads a photo that never comes; a thread of a pool would keep it alive."""
    process = start(out / "a.beton", hooks.hanging_read, threads=9, dataset="imagefolder", data_dir=folder)
    assert end(process, signal.SIGTERM) == 143
    assert files_in(out) == []


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_what_is_no_ordinary_file_is_not_waited_for(folder, out, on_error):
    """Opening a pipe waits for somebody who writes to it, and reading /dev/zero never ends."""
    os.mkfifo(folder / "class_1" / "pipe.png")
    (folder / "class_1" / "zero.png").symlink_to("/dev/zero")
    (folder / "class_1" / "nowhere.png").symlink_to("/nowhere/at/all.png")
    done = write_cli(out / "a.beton", folder, on_error=on_error)
    if on_error == "raise":
        assert_user_error(done, f"cannot read {folder}/class_1/", "on_error=skip")
        assert files_in(out) == []
    else:
        assert done.returncode == 0
        reasons = [line.split("class_1/")[1] for line in card_of(out / "a.beton")["skipped"]]
        assert reasons[1:] == [f"{name}.png: it is not an ordinary file" for name in ("pipe", "zero")]
        assert reasons[0].startswith("nowhere.png: ")
        assert "No such file" in reasons[0]


def test_photo_that_takes_more_memory_than_there_is_is_named(folder, out):
    Image.new("RGB", (10000, 8000)).save(folder / "class_1" / "large.png")
    argv = write_options(out / "a.beton", folder, num_workers=1, max_resolution=100)
    done = forked("write_dataset.py", *argv, hook=hooks.small_memory)
    assert_user_error(done, f"not enough memory for {folder}/class_1/large.png", "cfg.num_workers")
    assert files_in(out) == []


def test_disk_full_at_the_card_leaves_the_old_file(folder, out, monkeypatch):
    path = write_good(out / "a.beton", folder)
    before = sha256(path)
    monkeypatch.setattr(transaction, "card_text", lambda *_: fail())
    assert_user_error(write_cli(path, folder, write_mode="jpg"), "cannot write", "the disk is broken")
    assert sha256(path) == card_of(path)["sha256"] == before
    assert files_in(out) == DONE


def test_overwriting_replaces_file_and_card(folder, out):
    path = write_good(out / "a.beton", folder, write_mode="raw")
    before = sha256(path)
    write_good(path, folder, write_mode="jpg", subset=3)
    card = json.loads((out / "a.beton.json").read_text())
    assert sha256(path) == card["sha256"] != before
    assert count_in(path) == card["num_samples"] == 3


def test_failing_write_leaves_the_old_file_and_card(folder, out):
    path = write_good(out / "a.beton", folder, write_mode="raw")
    before = [(out / name).read_bytes() for name in files_in(out)]
    (folder / "class_1" / "z.png").write_bytes(b"")
    assert write_cli(path, folder, write_mode="jpg").returncode == 2
    assert [(out / name).read_bytes() for name in files_in(out)] == before


def test_wrong_write_path_is_one_line(folder, out):
    (out / "file").write_text("")
    os.mkfifo(out / "pipe")
    assert_user_error(write_cli(out, folder), f"{out} is a folder")
    assert_user_error(write_cli(out / "pipe", folder), "not an ordinary file")
    assert_user_error(write_cli(out / "file" / "a.beton", folder), f"there is no folder {out / 'file'}")
    assert_user_error(write_cli(out / "none" / "a.beton", folder), f"there is no folder {out / 'none'}")
    assert_user_error(write_cli("/proc/a.beton", folder), "cannot write /proc/a.beton")
    assert_user_error(write_cli(out / ("a" * 250), folder), "cannot write", "File name too long")
    assert files_in(out) == ["file", "pipe"]


def test_folder_in_the_place_of_the_card_is_one_line(folder, out):
    (out / "a.beton.json").mkdir()
    assert_user_error(write_cli(out / "a.beton", folder), "cannot write")
    assert files_in(out) == ["a.beton.json"]
