"""beton.write: any data set of Python, read in processes."""

import os
import signal
import threading
import time

import numpy as np
import psutil
import pytest
from PIL import Image
from torch.utils.data import Dataset

import beton
from tests.support.betons import DONE, LEFT, card_of, files_in, payloads, sha256, stored_photos
from tests.support.loaders import within
from tests.support.photos import draw, draw_photos, encoded
from tests.support.scripts import Forked

COUNT = 24


class Photos(Dataset):
    """Images in the three ways in which they may be given; `before(i)` is called in the process that reads."""

    classes = ["bytes", "pillow", "pixels"]

    def __init__(self, before=lambda i: None, count=COUNT):
        self.photos, self.before = draw_photos(count, 20, 40), before

    def __len__(self):
        return len(self.photos)

    def __getitem__(self, i):
        other = self.before(i)
        if other is not None:
            return other
        photo = self.photos[i]
        return [encoded(photo), Image.fromarray(photo), photo][i % 3], i % 3


def at(index, do):
    """A `before` that does something at one sample."""
    return lambda i: do() if i == index else None


def raise_(error):
    raise error


def write(dataset, path, **given) -> dict:
    return within(60, lambda: beton.write(dataset, path, **({"workers": 2, "say": lambda text: None} | given)))


def assert_nothing_is_left(out):
    assert files_in(out) == []
    children = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    # Other tests of this process have servers that scripts are forked from
    servers = ("multiprocessing.forkserver", "multiprocessing.resource_tracker")
    assert not [child for child in children if not any(name in " ".join(child.cmdline()) for name in servers)]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("beton-writer")]


@pytest.mark.parametrize("kind", ["torch", "list"])
def test_bytes_pictures_and_pixels_are_written_as_they_are(out, kind):
    dataset = Photos()
    card = write(dataset if kind == "torch" else list(dataset), out / "a.beton", write_mode="raw")
    assert files_in(out) == DONE
    for stored, photo in zip(stored_photos(out / "a.beton"), dataset.photos, strict=True):
        np.testing.assert_array_equal(stored, photo)
    with beton.open(out / "a.beton") as file:
        assert file.labels.tolist() == [i % 3 for i in range(COUNT)]
        assert file.classes == (Photos.classes if kind == "torch" else None)
        assert file[5].label == 2
        np.testing.assert_array_equal(file[5].image, dataset.photos[5])
    assert card == card_of(out / "a.beton") and card["sha256"] == sha256(out / "a.beton")


def test_images_become_jpegs_unless_told_otherwise(out):
    card = write(Photos(), out / "a.beton", max_resolution=30)
    assert card["samples_per_mode"] == {"jpg": COUNT}
    assert max(max(photo.shape) for photo in stored_photos(out / "a.beton")) == 30


@pytest.mark.parametrize("given", [{}, {"write_mode": "proportion", "compress_probability": 0.3, "seed": 4}])
def test_bytes_do_not_depend_on_the_workers(out, given):
    found = {write(Photos(), out / f"{n}.beton", workers=n, **given)["sha256"] for n in (1, 2, 5)}
    assert len(found) == 1


def test_a_data_set_of_no_importable_class_with_many_samples_is_written(out):
    photo, main = draw(0, 16, 16), os.getpid()

    class Local:
        def __len__(self):
            return 500

        def __getitem__(self, i):
            assert os.getpid() != main
            return photo, lambda_of(i)

    lambda_of = lambda i: np.int32(i)  # noqa: E731  neither can be pickled
    write(Local(), out / "a.beton")
    with beton.open(out / "a.beton") as file:
        assert file.labels.tolist() == list(range(500))


def test_fields_of_other_names_and_numbers(out):
    fields = {"left": beton.fields.Image("raw"), "right": beton.fields.Image("jpg"), "far": beton.fields.Int()}
    photos = draw_photos(12, 20, 30)
    card = write([(photo, photo[::-1].copy(), -i) for i, photo in enumerate(photos)], out / "a.beton", fields=fields)
    assert card["fields"] == {"left": "rgb_image", "right": "rgb_image", "far": "int"}
    with beton.open(out / "a.beton") as file:
        left, right, far = file[7]
        np.testing.assert_array_equal(left, photos[7])
        assert np.abs(right.astype(int) - photos[7][::-1]).mean() < 5
        assert far == -7
    with pytest.raises(beton.UserError, match=r"cannot read sample 3 \(right: it is no image file"):
        write([(p, b"no photo" if i == 3 else p, i) for i, p in enumerate(photos)], out / "b.beton", fields=fields)


PHOTO = draw(1, 20, 20)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("before", "words"),
    [
        (lambda: 1 / 0, r"cannot store sample 5 .ZeroDivisionError: division by zero, test_api.py line \d+.; correct"),
        (lambda: raise_(KeyError("size")), "cannot store sample 5 .KeyError: 'size'"),
        (
            lambda: raise_(OSError(5, "the disk is broken")),
            "cannot read sample 5 .*the disk is broken.*; correct it, or",
        ),
        (lambda: raise_(MemoryError()), "not enough memory for sample 5; set a smaller `workers`"),
        (lambda: PHOTO, r"sample 5 .*dataset\[5\] is ndarray instead of a tuple .image, label."),
        (lambda: (PHOTO,), r"sample 5 .*dataset\[5\] is 1 values instead of a tuple"),
        (lambda: (PHOTO, 1, 2), r"sample 5 .*dataset\[5\] is 3 values instead of a tuple"),
        (lambda: (PHOTO.astype(float), 1), "cannot read sample 5 .*float64 .20, 20, 3. instead of an image"),
        (lambda: (PHOTO[..., 0], 1), "cannot read sample 5 .*uint8 .20, 20. instead of an image"),
        (lambda: ("a.jpg", 1), "cannot read sample 5 .*str instead of an image"),
        (lambda: (encoded(PHOTO)[:90], 1), "cannot read sample 5 "),
        (lambda: (PHOTO, 3), "the label of sample 5 is 3, not one of 0 to 2"),
        (lambda: (PHOTO, "cat"), "cannot store sample 5 .label: 'cat' is not a whole number"),
    ],
    ids=[
        "raises",
        "key",
        "disk",
        "memory",
        "no_tuple",
        "one",
        "three",
        "floats",
        "grey",
        "text",
        "truncated",
        "class",
        "word",
    ],
)
def test_an_error_of_the_data_set_names_the_sample_and_nothing_is_left(out, before, words, workers):
    with pytest.raises(beton.UserError, match=words):
        write(Photos(at(5, before)), out / "a.beton", workers=workers)
    assert_nothing_is_left(out)


def test_samples_that_cannot_be_read_can_be_left_out(out):
    dataset = Photos(at(5, lambda: (b"no photo", 2)))
    card = write(dataset, out / "a.beton", on_error="skip")
    assert card["num_samples"] == COUNT - 1 and len(card["skipped"]) == 1
    assert card["skipped"][0].startswith("sample 5: ")


@pytest.mark.parametrize("how", ["killed", "exits"])
def test_a_process_that_dies_is_an_error_and_no_hang(out, how):
    die = {"killed": lambda: os.kill(os.getpid(), signal.SIGKILL), "exits": lambda: os._exit(1)}[how]
    with pytest.raises(beton.UserError, match="a process that reads samples ended unexpectedly; see .*`workers`"):
        write(Photos(at(5, die)), out / "a.beton")
    assert_nothing_is_left(out)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_data_set_that_exits_ends_the_write(out, workers):
    with pytest.raises(SystemExit):
        write_here = Photos(at(5, lambda: raise_(SystemExit(7))))
        beton.write(write_here, out / "a.beton", workers=workers)
    assert_nothing_is_left(out)


class Interrupt(BaseException):
    """In place of Ctrl-C, at a moment that the test chooses."""


def test_an_interrupted_write_is_resumed_to_the_same_bytes(out, tmp_path):
    whole, left, said, read = write(Photos(), tmp_path / "whole.beton"), [10], [], tmp_path / "read"

    def progress(count):
        left[0] -= count
        if left[0] == 0:
            raise Interrupt

    fields = {"image": beton.fields.Image("jpg"), "label": beton.fields.Int()}  # so that none is read to find out
    more = {"fields": fields, "resume": True, "say": said.append}
    with pytest.raises(Interrupt):
        beton.write(Photos(), out / "a.beton", workers=2, progress=progress, **more)
    assert files_in(out) == LEFT
    assert said == [
        "nothing to resume, started anew",
        f"10 of {COUNT} samples are kept: `resume`=1 continues after them",
    ]
    read.mkdir()
    card = write(Photos(lambda i: (read / str(i)).touch()), out / "a.beton", workers=3, **more)
    assert said[-1] == f"resumed after 10 of {COUNT} samples"
    assert sorted(int(path.name) for path in read.iterdir()) == list(range(10, COUNT))
    assert card["sha256"] == whole["sha256"] == sha256(out / "a.beton")
    # And what is complete stays as it is
    write(Photos(), out / "a.beton", resume=True, say=said.append)
    assert "is complete already" in said[-1]
    assert files_in(out) == DONE


def test_an_interrupted_write_is_not_resumed_with_other_settings(out):
    with pytest.raises(Interrupt):
        beton.write(Photos(), out / "a.beton", workers=1, resume=True, progress=lambda n: raise_(Interrupt))
    with pytest.raises(beton.UserError, match="had `jpeg_quality`=90, this one has 50; .* leave out `resume`"):
        write(Photos(), out / "a.beton", resume=True, jpeg_quality=50)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"on_error": "ignore"}, "`on_error`='ignore' is neither 'raise' nor 'skip'"),
        ({"fields": {"image": beton.fields.Image()}, "jpeg_quality": 50}, "jpeg_quality and `fields` are given"),
        ({"write_mode": "png"}, "`write_mode`='png' is not one of"),
        ({"max_resolution": 0}, "`max_resolution`=0 is not from 1 to 65535"),
        ({"classes": [1, 2, 3]}, "`classes` are not all strings"),
        ({"subset": 0}, "there are no samples to write"),
        ({"fields": {}}, "at least one field"),
        ({"fields": {"a name of more than 16 letters": beton.fields.Int()}}, "cannot be the name of a field"),
    ],
)
def test_wrong_arguments_are_errors_that_name_them(out, given, words):
    with pytest.raises(beton.UserError, match=words):
        write(Photos(), out / "a.beton", **given)
    assert_nothing_is_left(out)


def test_what_was_there_stays_when_a_write_fails(out):
    write(Photos(), out / "a.beton")
    before = [(out / name).read_bytes() for name in DONE]
    with pytest.raises(beton.UserError):
        write(Photos(at(20, lambda: 1 / 0)), out / "a.beton", write_mode="raw")
    assert [(out / name).read_bytes() for name in files_in(out)] == before


def test_the_whole_way_from_a_list_to_batches(out):
    write(Photos(), out / "a.beton", write_mode="raw", subset=20)
    assert len(payloads(out / "a.beton")) == 20
    with beton.Loader(out / "a.beton", 8, image="center(16)", workers=2) as loader:
        assert loader.classes == Photos.classes
        assert sorted(int(i) for _, labels in loader for i in labels) == sorted(i % 3 for i in range(20))


def _write_slowly(path: str, pids: str) -> None:
    def before(i):
        open(f"{pids}/{os.getpid()}", "w").close()
        time.sleep(0.05)

    beton.write(Photos(before, 400), path, workers=2)


def test_a_killed_write_leaves_no_process(out, tmp_path):
    pids = tmp_path / "pids"
    pids.mkdir()
    process = Forked(tmp_path / "process", _write_slowly, str(out / "a.beton"), str(pids))
    try:
        process.wait_for(lambda: len(list(pids.iterdir())) >= 3)  # two have looked for what the samples are
        process.kill()
        assert process.end(60) == -signal.SIGKILL
        deadline = time.monotonic() + 20
        while any(map(is_alive, pids.iterdir())):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert files_in(out) == LEFT
    finally:
        process.stop()


def is_alive(path) -> bool:
    try:
        return psutil.Process(int(path.name)).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
