"""Photos that cannot be read, writes that are killed, disks that are full, options that make no sense."""

import contextlib
import errno
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, assert_user_error, run_script
from PIL import Image
from writing import draw, files_in, make_folder, sha256, stored_photos, write_cli, write_good

from pipelines import writer
from pipelines.beton import read_card, read_index
from pipelines.decode import UNREADABLE, to_rgb
from pipelines.errors import UserError
from pipelines.sources.generated import open_source
from pipelines.writer import WriteOptions, write


def encoded(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(draw(0)).save(file, kind)
    return file.getvalue()


JPEG, AVIF = encoded("JPEG"), encoded("AVIF")
DAMAGED = {
    "text.jpg": b"this is no photo\n",
    "cut_off.jpg": JPEG[: len(JPEG) // 2],
    "empty.jpg": b"",
    "broken.webp": AVIF.replace(b"iloc", b"none"),  # Pillow raises RuntimeError
}


class Photos:
    """A source of small raw photos; `on_read(i)` is called first and may raise, or return other pixels."""

    classes = ["only"]

    def __init__(self, count, on_read=lambda i: None, label=0):
        self.count, self.on_read, self.the_label = count, on_read, label

    def __len__(self):
        return self.count

    def label(self, i):
        return self.the_label

    def name(self, i):
        return f"photo {i}"

    def read(self, i):
        pixels = self.on_read(i)
        return np.full((8, 8, 3), i % 256, np.uint8) if pixels is None else pixels


@pytest.fixture
def folder(tmp_path):
    make_folder(tmp_path / "photos", [(30, 40)] * 8)
    return tmp_path / "photos"


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


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
    card = read_card(out / "a.beton")
    assert sorted(line.split(":")[0] for line in card["skipped"]) == sorted(f"{folder}/class_0/{n}" for n in DAMAGED)
    assert card["samples_per_class"] == {"class_0": 4, "class_1": 4}
    for i, photo in enumerate(stored_photos(out / "a.beton")):
        np.testing.assert_array_equal(photo, draw(i, 30, 40))


@pytest.mark.parametrize("mode", ["raw", "proportion"])
def test_only_unreadable_photos_is_an_error(folder, out, mode):
    for photo in folder.glob("*/*"):
        photo.write_bytes(b"")
    assert_user_error(write_cli(out / "a.beton", folder, write_mode=mode, on_error="skip"), "none of the photos")
    assert files_in(out) == []


def test_what_pillow_raises_for_damaged_files_is_expected():
    rng = np.random.default_rng(0)
    for content in (JPEG, AVIF, *map(encoded, ("PNG", "WEBP", "GIF", "BMP"))):
        for _ in range(40):
            damaged = bytearray(content)
            for at in rng.integers(0, rng.choice((64, len(content))), 6):
                damaged[at] = rng.integers(256)
            with contextlib.suppress(UNREADABLE):
                assert to_rgb(bytes(damaged)).mode == "RGB"


def test_threads_are_gone_when_the_error_arrives(out):
    with pytest.raises(UserError) as caught:
        write(Photos(200, lambda i: i == 3 and fail()), out / "a.beton", WriteOptions("raw", chunk_size=2), {})
    # While the error, and with it every frame that it came through, is still held
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("beton-writer")], caught


def fail():
    raise OSError(errno.EIO, "the disk is broken")


def test_error_is_raised_at_once_though_a_photo_before_it_hangs(out):
    hangs, started = threading.Event(), []

    def on_read(i):
        if i == 0:
            hangs.wait(20)
        if i == 12:
            started.append(time.monotonic())
            fail()

    try:
        with pytest.raises(UserError, match="cannot read photo 12"):
            write(Photos(80, on_read), out / "a.beton", WriteOptions("raw", num_workers=2, chunk_size=5), {})
        assert time.monotonic() - started[0] < 5
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
        (MemoryError(), "not enough memory for photo 5; set a smaller cfg.num_workers"),
        (KeyError("size"), r"cannot store photo 5 .KeyError: 'size', test_writer_failures.py line \d+.; mend"),
        (ZeroDivisionError("division"), "cannot store photo 5 .ZeroDivisionError: division"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_exception_in_a_thread_names_the_photo(out, error, words, on_error):
    with pytest.raises(UserError, match=words):
        write(Photos(20, raising(error)), out / "a.beton", WriteOptions("raw", on_error=on_error), {})
    assert files_in(out) == []


def test_thread_that_exits_ends_the_write(out):
    with pytest.raises(SystemExit):
        write(Photos(20, raising(SystemExit(7))), out / "a.beton", WriteOptions("raw"), {})
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
        write(Photos(5, lambda i: pixels if i == 3 else None), out / "a.beton", WriteOptions(mode), {})
    assert files_in(out) == []


@pytest.mark.parametrize("label", [-1, 1, 1.5, None, "cat", 2**70])
def test_label_that_is_no_class_is_an_error(out, label):
    with pytest.raises(UserError, match="the label of photo 0 is .* not one of 0 to 0"):
        write(Photos(5, label=label), out / "a.beton", WriteOptions("raw"), {})
    assert files_in(out) == []


@pytest.mark.parametrize(("shape", "mode"), [((65535, 2), "raw"), ((2, 65535), "blocks"), ((2, 65500), "jpg")])
def test_longest_photos_that_can_be_stored(out, shape, mode):
    photo = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    write(Photos(1, lambda i: photo), out / "a.beton", WriteOptions(mode), {})
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
    assert read_index(out / "a.beton").num_samples == 9


def test_names_of_the_fields_differ_where_ffcv_cuts_them_off(folder, out):
    """Ours are fixed; two with the same first 16 characters are one field for FFCV."""
    names = list(read_index(write_good(out / "a.beton", folder)).fields)
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


def test_second_writer_of_a_path_is_refused_and_the_first_goes_on(out):
    seen = []

    def meanwhile(i):
        if i == 3:
            with pytest.raises(UserError, match="is being written by another process") as caught:
                write(Photos(5), out / "a.beton", WriteOptions("raw"), {})
            seen.append(caught.value)

    write(Photos(20, meanwhile), out / "a.beton", WriteOptions("raw", num_workers=1), {})
    assert len(seen) == 1
    assert read_index(out / "a.beton").num_samples == 20
    assert files_in(out) == ["a.beton", "a.beton.json"]


@pytest.mark.parametrize("outcome", ["published", "removed"])
def test_writer_that_ends_while_another_begins_is_left_alone(out, monkeypatch, outcome):
    """The other process publishes or removes the file between our opening and our locking of it."""
    first = write_good(out / "first.beton", dataset="generated", subset=2)
    content = first.read_bytes()

    def flock(file, _):
        partial = out / ".a.beton.partial"
        if outcome == "removed":
            partial.unlink()
        else:
            partial.write_bytes(content)
            partial.rename(out / "a.beton")

    monkeypatch.setattr(writer.fcntl, "flock", flock)
    with pytest.raises(UserError, match="is being written by another process"):
        write(Photos(5), out / "a.beton", WriteOptions("raw"), {})
    assert outcome == "removed" or (out / "a.beton").read_bytes() == content


def start(path, *options, threads=40, script=("write_dataset.py",)):
    """A write of 4,000 generated photos (a minute and more) in a process group of its own, under way."""
    command = [sys.executable, *script, "--cfg.dataset=generated", "--cfg.split=train"]
    command += [f"--cfg.write_path={path}", "--cfg.subset=4000", "--cfg.num_workers=40", *options]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    partial, started = path.with_name(f".{path.name}.partial"), time.monotonic()
    # Its threads tell that photos are being written, not only that the file is there
    while not (partial.exists() and len(os.listdir(f"/proc/{process.pid}/task")) > threads):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < started + 60
        time.sleep(0.01)
    process.start_took = time.monotonic() - started
    return process


def end(process, number):
    """Send a signal; returns (status, stderr). The process must end within 20 s and leave no other behind."""
    try:
        sent = time.monotonic()
        process.send_signal(number)
        _, stderr = process.communicate(timeout=20)
        # On two free cores its start takes 2 s; where other programs take the processors, all takes longer
        assert time.monotonic() - sent < max(5, 2.5 * process.start_took)
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
        return process.returncode, stderr
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_killed_write_leaves_no_beton_and_the_next_one_succeeds(out):
    path = out / "a.beton"
    assert end(start(path), signal.SIGKILL)[0] == -signal.SIGKILL
    assert files_in(out) == [".a.beton.journal", ".a.beton.partial"]
    write_good(path, dataset="generated", subset=5, write_mode="raw")
    undisturbed = write_good(out / "b.beton", dataset="generated", subset=5, write_mode="raw")
    assert sha256(path) == sha256(undisturbed)
    assert files_in(out) == ["a.beton", "a.beton.json", "b.beton", "b.beton.json"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_interrupted_write_ends_soon_and_leaves_nothing(out, number, status):
    # All photos are with the 40 threads: none of them may go on to its last one
    code, stderr = end(start(out / "a.beton"), number)
    assert code == status
    assert files_in(out) == []
    said = [line for line in stderr.splitlines() if line.strip() and "images" not in line]  # all but the bar
    assert said == (["interrupted"] if status == 130 else [])


HANGING_READ = """
import threading
import write_dataset
from pipelines.sources.imagefolder import PhotoFolder
from runtime.config import run
read = PhotoFolder.read
PhotoFolder.read = lambda self, i: threading.Event().wait() if "007" in self.name(i) else read(self, i)
run(write_dataset.main)
"""


def test_signal_ends_a_write_of_which_a_thread_hangs(folder, out):
    """It reads a photo that never comes, as from a network that is gone; a thread of a pool would keep it alive."""
    options = ["--cfg.dataset=imagefolder", f"--cfg.data_dir={folder}"]
    process = start(out / "a.beton", *options, threads=9, script=["-c", HANGING_READ])
    assert end(process, signal.SIGTERM)[0] == 143
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
        reasons = [line.split("class_1/")[1] for line in read_card(out / "a.beton")["skipped"]]
        assert reasons[1:] == [f"{name}.png: it is not an ordinary file" for name in ("pipe", "zero")]
        assert reasons[0].startswith("nowhere.png: ")
        assert "No such file" in reasons[0]


SMALL_MEMORY = """
import resource, sys
import write_dataset
import pipelines.sources.imagefolder
from runtime.config import run
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (150 << 20),) * 2)
run(write_dataset.main)
"""


def test_photo_that_takes_more_memory_than_there_is_is_named(folder, out):
    Image.new("RGB", (10000, 8000)).save(folder / "class_1" / "large.png")
    options = ["--cfg.split=train", f"--cfg.data_dir={folder}", "--cfg.num_workers=1", "--cfg.max_resolution=100"]
    done = run_script("-c", SMALL_MEMORY, *options, f"--cfg.write_path={out / 'a.beton'}")
    assert_user_error(done, f"not enough memory for {folder}/class_1/large.png", "cfg.num_workers")
    assert files_in(out) == []


def test_disk_full_at_the_card_leaves_the_old_file(folder, out, monkeypatch):
    path = write_good(out / "a.beton", folder)
    before = sha256(path)
    monkeypatch.setattr(writer.beton, "card_text", lambda *_: fail())
    assert_user_error(write_cli(path, folder, write_mode="jpg"), "cannot write", "the disk is broken")
    assert sha256(path) == read_card(path)["sha256"] == before
    assert files_in(out) == ["a.beton", "a.beton.json"]


def test_overwriting_replaces_file_and_card(folder, out):
    path = write_good(out / "a.beton", folder, write_mode="raw")
    before = sha256(path)
    write_good(path, folder, write_mode="jpg", subset=3)
    card = json.loads((out / "a.beton.json").read_text())
    assert sha256(path) == card["sha256"] != before
    assert read_index(path).num_samples == card["num_samples"] == 3


def test_failing_write_leaves_the_old_file_and_card(folder, out):
    path = write_good(out / "a.beton", folder, write_mode="raw")
    before = [(out / name).read_bytes() for name in files_in(out)]
    (folder / "class_1" / "z.png").write_bytes(b"")
    assert write_cli(path, folder, write_mode="jpg").returncode == 2
    assert [(out / name).read_bytes() for name in files_in(out)] == before


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"write_mdoe": "raw"}, ["--cfg.write_mdoe", "--cfg.write_mode"]),
        ({"write_mode": "png"}, ["cfg.write_mode=png", "proportion"]),
        ({"rest": "jpg"}, ["cfg.rest=jpg", "raw, blocks"]),
        ({"passthrough": 2}, ["cfg.passthrough=2", "1/0"]),
        ({"compress_probability": 1.5}, ["cfg.compress_probability=1.5", "between 0 and 1"]),
        ({"jpeg_quality": 0}, ["cfg.jpeg_quality=0"]),
        ({"max_resolution": "big"}, ["cfg.max_resolution=big", "an int"]),
        ({"num_workers": 0}, ["cfg.num_workers=0"]),
        ({"split": None}, ["missing cfg.split"]),
        ({"split": "test"}, ["cfg.split=test"]),
        ({"subset": 0}, ["no photos to write"]),
        ({"on_error": "ignore"}, ["cfg.on_error=ignore", "raise, skip"]),
        ({"dataset": "imagefoldr"}, ["unknown source 'imagefoldr'", "did you mean 'imagefolder'", "pipelines/sources"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_option_is_one_line(folder, out, wrong, words):
    assert_user_error(write_cli(out / "a.beton", folder, **wrong), *words)
    assert files_in(out) == []


def test_missing_write_path_is_one_line(folder):
    assert_user_error(write_cli(None, folder), "missing cfg.write_path")


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


def test_generated_photos_do_not_depend_on_how_they_are_written(out):
    """The source of the tests of interrupted writes is the one that the demo writes."""
    path = write_good(out / "a.beton", dataset="generated", split="val", subset=12, write_mode="raw")
    source = open_source(None, "val", count=12)
    assert read_index(path).metadata["label"].tolist() == [source.label(i) for i in range(12)]
    np.testing.assert_array_equal(stored_photos(path)[11], np.asarray(to_rgb(source.read(11))))
