"""Our loader, beside the contract (tests/pipelines/test_contract.py): its memory, its dtypes, its errors."""

import shutil
import threading

import numpy as np
import pytest
import torch

import beton
from beton.errors import UserError
from beton.format.records import DESCRIPTOR, HEADER
from beton.loading import buffers
from beton.stages.flip import Flip
from pipelines import open_pipeline
from tests.support.betons import write_beton
from tests.support.loaders import fingerprint, images_of, labels_of, run_epoch, task, within
from tests.support.photos import draw_photos


def opened(dataset, **changes):
    return open_pipeline("beton", task(dataset, **changes))


def batches(dataset, **changes):
    """One epoch as a list."""
    return run_epoch("beton", dataset, **changes)


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_file_larger_than_memory_is_read_with_the_same_promises(numbered, in_memory):
    given = {"in_memory": in_memory, "drop_last": False}
    found = {fingerprint(batches(numbered["beton"], workers=workers, **given)) for workers in (1, 2, 1000)}
    assert len(found) == 1
    order = labels_of(batches(numbered["beton"], **given))
    assert sorted(order) == list(range(45)) and order != sorted(order)


def test_epochs_and_seeds_draw_other_flips_of_the_same_photos(numbered):
    given = {"stages": "center(24)|flip", "shuffle": False, "drop_last": False}
    first, *others = (images_of(batches(numbered["beton"], **given, **run)) for run in ({}, {"epoch": 1}, {"seed": 1}))
    for other in others:
        assert 0.2 < (first != other).flatten(1).any(1).float().mean() < 0.8


def test_images_do_not_depend_on_the_rank_that_reads_them(numbered):
    given = {"shuffle": False, "drop_last": False, "batch_size": 1}
    alone = images_of(batches(numbered["beton"], **given))
    for rank in (0, 1):
        share = batches(numbered["beton"], rank=rank, world_size=2, **given)
        assert torch.equal(images_of(share), alone[rank::2])


def test_without_normalize_images_are_the_pixels_that_it_would_normalise(numbered):
    stages = "rrc(24)|flip"
    pixels = batches(numbered["beton"], stages=stages)[0][0]
    numbers = batches(numbered["beton"], stages=f"{stages}|normalize(mean=(0, 0, 0), std=(1, 1, 1))")[0][0]
    assert torch.equal((numbers * 255).round().to(torch.uint8), pixels)


def test_dropped_batches_leave_their_memory_to_later_ones_and_held_ones_do_not(numbered, monkeypatch):
    taken, take = {}, buffers.BufferPool.take

    def counted(self):
        buffer = take(self)
        taken[id(buffer)] = buffer
        return buffer

    monkeypatch.setattr(buffers.BufferPool, "take", counted)
    loader = opened(numbered["beton"])
    for _ in range(50):
        for _images, _labels in loader:
            pass
    assert len(taken) <= 2 * 6  # for images and labels each: three ahead, one handed over, one in use, one to spare
    whole = list(loader)
    assert len({images.data_ptr() for images, _ in whole}) == len(whole)


def test_an_iterator_that_is_dropped_leaves_no_thread(numbered):
    loader = opened(numbered["beton"])
    next(iterator := iter(loader))
    before = set(threading.enumerate())
    del iterator
    assert set(threading.enumerate()) < before
    loader.close()


def test_numpys_generator_is_left_alone(numbered):
    np.random.seed(7)
    before = np.random.get_state()[1].tolist()
    batches(numbered["beton"])
    assert np.random.get_state()[1].tolist() == before


def test_what_came_before_is_not_read(numbered, monkeypatch):
    loader = opened(numbered["beton"], batch_size=4)
    read, fill = [], loader._columns.fill

    def noted(workers, samples, *more):
        read.extend(samples)
        fill(workers, samples, *more)

    monkeypatch.setattr(loader._columns, "fill", noted)
    assert len(list(loader.batches(0, start=9))) == 2
    assert len(read) == 8


def test_raw_and_jpeg_photos_may_be_mixed(tmp_path):
    photos = draw_photos(20, 30, 60)
    raw, mixed = (write_beton(tmp_path / f"{mode}.beton", photos, mode) for mode in ("raw", "proportion"))
    given = {"stages": "center(24)", "shuffle": False, "drop_last": False}
    exact, near = (images_of(batches(path, **given)).int() for path in (raw, mixed))
    distance = (exact - near).abs().amax((1, 2, 3))
    assert (distance == 0).sum() == 10 and distance.max() < 40


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("on_error", ["raise", "skip", "substitute"])
def test_an_exception_in_a_stage_names_the_samples_and_leaves_nothing(numbered, monkeypatch, workers, on_error):
    calls, error = [], ZeroDivisionError("the stage is broken")

    def broken(self, keys):
        calls.append(len(keys))
        if len(calls) >= 3:
            raise error
        return np.zeros(len(keys), bool)

    before = set(threading.enumerate())
    loader = opened(numbered["beton"], workers=workers, batch_size=4, shuffle=False, on_error=on_error)
    with monkeypatch.context() as patch:
        patch.setattr(Flip, "mirrors", broken)
        words = r"the stage is broken.* samples \d+, \d+, \d+, \d+ of .*beton .field 'image'"
        with pytest.raises(RuntimeError, match=words) as caught:
            within(60, lambda: list(loader))
    assert caught.value.__cause__ is error
    assert len(within(60, lambda: list(loader))) == 11, "it can be used again"
    loader.close()
    assert set(threading.enumerate()) <= before


def test_a_closed_loader_ends_its_epochs_and_says_so(numbered):
    loader = opened(numbered["beton"])
    next(epoch := iter(loader))
    loader.close()
    assert list(epoch) == []
    with pytest.raises(RuntimeError, match="all.beton is closed"):
        list(loader)


def test_a_file_that_is_truncated_is_a_user_error(numbered, tmp_path):
    """All the damage that there may be to the tables: tests/beton/format."""
    data = numbered["beton"].read_bytes()
    for size in (0, 100, len(data) - 1000):
        (tmp_path / "part.beton").write_bytes(data[:size])
        with pytest.raises(UserError, match="not a complete .beton"):
            opened(tmp_path / "part.beton")


@pytest.mark.parametrize(
    ("number", "changes", "words"),
    [
        (0, {"name": "picture"}, "has no field 'image'; it has picture, label"),
        (0, {"type_id": 3}, "the field 'image' holds bytes, which takes no stages"),
        (1, {"name": "target"}, "has no field 'label'; it has image, target"),
        (1, {"type_id": 0}, "the field 'label' of .* is float, not int; give a dataset whose labels"),
    ],
)
def test_a_beton_without_an_image_or_a_label_is_a_user_error(numbered, tmp_path, number, changes, words):
    path = shutil.copy(numbered["beton"], tmp_path / "other.beton")
    descriptors = np.memmap(path, DESCRIPTOR, "r+", HEADER.itemsize, 2)
    for key, value in changes.items():
        if key == "name":
            value = np.frombuffer(value.encode().ljust(16, b"\0"), np.uint8)
        descriptors[key][number] = value
    with pytest.raises(UserError, match=words):
        opened(path)


def test_a_beton_without_samples_is_a_user_error(numbered, tmp_path):
    data = bytearray(numbered["beton"].read_bytes()[: HEADER.itemsize + 2 * DESCRIPTOR.itemsize])
    header = np.frombuffer(data, HEADER, 1)
    header["num_samples"], header["alloc_table_ptr"] = 0, len(data)
    (tmp_path / "empty.beton").write_bytes(data)
    for drop_last in (True, False):
        with pytest.raises(UserError, match="no samples"):
            opened(tmp_path / "empty.beton", drop_last=drop_last)


@pytest.mark.parametrize("stages", [
    "center(32, 1)|flip", "rrc(32)|flip", "center(40, 1)|flip", "rrc(48)", "center(32, 1)|flip|translate(3)", "rrc(64)",
])  # fmt: skip
def test_large_batches_are_written_past_the_caches_and_hold_the_same_numbers(tmp_path, stages):
    photos = np.random.default_rng(0).integers(0, 256, (256, 32, 32, 3), np.uint8)
    beton.write([(photo, i) for i, photo in enumerate(photos)], tmp_path / "a.beton", write_mode="raw", workers=1)
    given = {"image": f"{stages}|normalize", "shuffle": False, "workers": 1}
    with (
        beton.Loader(tmp_path / "a.beton", 256, **given) as large,
        beton.Loader(tmp_path / "a.beton", 8, **given) as small,
    ):
        (images, _), few = next(iter(large)), torch.cat([images for images, _ in small])
        assert images.numel() * 4 > 1 << 20
        assert torch.equal(images, few)
