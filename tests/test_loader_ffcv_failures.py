"""The FFCV loader when something is wrong: an exception that names the sample, never a hang, nothing left over."""

import shutil
import threading

import cv2
import numpy as np
import pytest
from loading import draw_photos, labels_of, task, within, write_beton

from pipelines import beton
from pipelines.errors import DamagedSample, UserError
from pipelines.loaders import open_loader
from pipelines.ops.flip import Flip

BAD = 17


def damage(path, target, change):
    """A copy of a .beton whose sample BAD has its payload (uint8, in place) changed."""
    shutil.copy(path, target)
    index = beton.read_index(path)
    start, size = int(index.metadata["image"]["data_ptr"][BAD]), int(index.sizes[BAD])
    change(np.memmap(target, np.uint8, "r+", start, size))
    return target


def no_middle(payload):
    payload[len(payload) // 3 : 2 * len(payload) // 3] = 0


def no_end(payload):
    payload[len(payload) // 2 :] = 0


def nothing(payload):
    payload[:] = 0


def other_size(payload):
    small = np.frombuffer(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1], np.uint8)
    payload[: len(small)] = small


def garbled(payload):
    payload[:] = np.random.default_rng(0).integers(0, 256, len(payload))


def assert_nothing_remains(loader, before):
    loader.close()
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("change", [no_middle, no_end, nothing, other_size, garbled])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_photo_is_an_error_that_names_it(tmp_path, change, workers):
    path = write_beton(tmp_path / "good.beton", draw_photos(45, 60, 90), "jpg")
    path = damage(path, tmp_path / "bad.beton", change)
    before = set(threading.enumerate())
    loader = open_loader("ffcv", task(path, workers=workers, drop_last=False))
    with pytest.raises(DamagedSample, match=f"sample {BAD} of .*bad.beton") as caught:
        within(20, lambda: list(loader))
    assert (caught.value.sample, caught.value.field, caught.value.dataset) == (BAD, "image", str(path))
    assert_nothing_remains(loader, before)


def test_the_batches_before_a_damaged_photo_arrive(tmp_path):
    path = write_beton(tmp_path / "good.beton", draw_photos(45, 60, 90), "jpg")
    loader = open_loader("ffcv", task(damage(path, tmp_path / "bad.beton", nothing), shuffle=False))
    arrived = []
    with pytest.raises(DamagedSample):
        within(20, lambda: arrived.extend(loader))
    assert labels_of(arrived) == list(range(BAD // 8 * 8))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_in_a_stage_names_the_samples_and_leaves_nothing(numbered, monkeypatch, workers):
    calls, error = [], ZeroDivisionError("the stage is broken")

    def broken(self, keys):
        calls.append(len(keys))
        if len(calls) >= 3:
            raise error
        return np.zeros(len(keys), bool)

    monkeypatch.setattr(Flip, "mirrors", broken)
    before = set(threading.enumerate())
    loader = open_loader("ffcv", task(numbered["beton"], workers=workers, batch_size=4, shuffle=False))
    with pytest.raises(RuntimeError, match=r"the stage is broken.* samples \d+, \d+, \d+, \d+ of .*beton") as caught:
        within(20, lambda: list(loader))
    assert caught.value.__cause__ is error
    assert_nothing_remains(loader, before)


def test_after_an_error_the_loader_can_be_used_again(numbered, monkeypatch):
    loader = open_loader("ffcv", task(numbered["beton"]))
    with monkeypatch.context() as patch:
        patch.setattr(Flip, "mirrors", lambda *_: 1 / 0)
        with pytest.raises(RuntimeError, match="division by zero"):
            within(20, lambda: list(loader))
    assert len(within(20, lambda: list(loader))) == 5


def test_a_pipeline_that_does_not_begin_with_a_crop_is_a_user_error(numbered):
    with pytest.raises(UserError, match="begin with rrc"):
        open_loader("ffcv", task(numbered["beton"], stages="flip|rrc(9)"))


def test_an_unknown_loader_is_a_user_error(numbered):
    with pytest.raises(UserError, match="did you mean 'ffcv'.*use one of cached, ffcv, ffcv_stock, torch"):
        open_loader("fcv", task(numbered["beton"]))


def test_what_is_no_beton_is_a_user_error(numbered, tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        open_loader("ffcv", task(tmp_path / "nothing.beton"))
    with pytest.raises(UserError, match="is not a .beton file"):
        open_loader("ffcv", task(numbered["folder"]))
    data = numbered["beton"].read_bytes()
    for size in (0, 100, len(data) - 1000):
        (tmp_path / "cut.beton").write_bytes(data[:size])
        with pytest.raises(UserError, match="not a complete .beton"):
            open_loader("ffcv", task(tmp_path / "cut.beton"))


def edit_field(path, target, number, **changes):
    """A copy of a .beton whose field descriptor `number` (0 the image, 1 the label) has other values."""
    shutil.copy(path, target)
    descriptors = np.memmap(target, beton.FIELD, "r+", beton.HEADER.itemsize, 2)
    if "name" in changes:
        descriptors["name"][number] = np.frombuffer(changes["name"].encode().ljust(16, b"\0"), np.uint8)
    descriptors["type_id"][number] = changes.get("type_id", descriptors["type_id"][number])
    return target


@pytest.mark.parametrize(
    ("number", "changes", "words"),
    [
        (0, {"name": "picture"}, "no image field 'image'"),
        (0, {"type_id": 3}, "no image field"),
        (1, {"name": "target"}, "no int field 'label'"),
        (1, {"type_id": 0}, "no int field 'label'"),
    ],
)
def test_a_beton_without_an_image_or_a_label_is_a_user_error(numbered, tmp_path, number, changes, words):
    path = edit_field(numbered["beton"], tmp_path / "other.beton", number, **changes)
    with pytest.raises(UserError, match=words):
        open_loader("ffcv", task(path))


def test_a_beton_without_samples_is_a_user_error(numbered, tmp_path):
    data = bytearray(numbered["beton"].read_bytes()[: beton.HEADER.itemsize + 2 * beton.FIELD.itemsize])
    header = np.frombuffer(data, beton.HEADER, 1)
    header["num_samples"], header["alloc_table_ptr"] = 0, len(data)
    (tmp_path / "empty.beton").write_bytes(data)
    for drop_last in (True, False):
        with pytest.raises(UserError, match="no samples"):
            open_loader("ffcv", task(tmp_path / "empty.beton", drop_last=drop_last))
