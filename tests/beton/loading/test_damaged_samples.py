"""Damaged samples by `on_error` and `verify`, indices out of range, and what an epoch leaves behind."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from beton.errors import DamagedSample, UserError
from beton.format.card import card_path
from beton.format.file import BetonFile
from beton.format.mapped import MappedFile
from beton.loading.damage import LeftOut
from pipelines import open_pipeline
from runtime.training.data import Data
from tests.support.betons import copied, damage, payload, write_beton
from tests.support.loaders import fingerprint, images_of, labels_of, task, within
from tests.support.photos import draw_photos
from tests.support.scripts import run_code

COUNT = 45
STAGES = "center(24)"
BAD = [3, 4, 17, 30, 44]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """45 JPEGs whose label is their number."""
    return write_beton(tmp_path_factory.mktemp("good") / "good.beton", draw_photos(COUNT, 40, 60), "jpg")


@pytest.fixture
def damaged(good, tmp_path):
    """damaged(samples): a copy of the beton in which these are damaged, with its card."""

    def make(samples):
        return damage(copied(good, tmp_path / f"bad{len(samples)}.beton"), samples)

    return make


def opened(path, epoch=0, **changes):
    """A pipeline that begins with this epoch when it is iterated over."""
    pipeline = open_pipeline("beton", task(path, **({"stages": STAGES} | changes)))
    pipeline.epoch = epoch
    return pipeline


@pytest.fixture(scope="module")
def pixels(good):
    """The image of each sample."""
    return images_of(opened(good, shuffle=False, drop_last=False))


def assert_each_image_is_of_its_label(batches, pixels):
    for images, labels in batches:
        assert torch.equal(images, pixels[labels])


def no_middle(stored):
    stored[len(stored) // 3 : 2 * len(stored) // 3] = 0


def no_end(stored):
    stored[len(stored) // 2 :] = 0


def other_size(stored):
    small = np.frombuffer(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1], np.uint8)
    stored[: len(small)] = small


def garbled(stored):
    stored[:] = np.random.default_rng(0).integers(0, 256, len(stored))


@pytest.mark.parametrize("change", [no_middle, no_end, other_size, garbled])
@pytest.mark.parametrize("workers", [1, 2])
def test_any_damage_is_an_error_that_names_the_sample(good, tmp_path, change, workers):
    path = damage(copied(good, tmp_path / "bad.beton"), [17], change)
    loader = opened(path, workers=workers, drop_last=False, stages="rrc(24, scale=(0.25, 1))|flip|normalize")
    with pytest.raises(DamagedSample, match="sample 17 of .*bad.beton") as caught:
        within(60, lambda: list(loader))
    assert (caught.value.sample, caught.value.field, caught.value.dataset) == (17, "image", str(path))


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("shuffle", [True, False])
def test_skip_fills_the_batches_with_the_next_samples(damaged, good, pixels, shuffle, drop_last):
    changes = {"shuffle": shuffle, "drop_last": drop_last}
    loader = opened(damaged(BAD), on_error="skip", **changes)
    batches = within(60, lambda: list(loader))
    assert [len(labels) for _, labels in batches] == [8] * 5
    found = labels_of(batches)
    assert len(set(found)) == 40
    assert not set(found) & set(BAD)
    assert_each_image_is_of_its_label(batches, pixels)
    # Rows of good samples hold what they hold without damage, but for the last batches
    for was, now in zip(labels_of(opened(good, **changes))[:16], found[:16], strict=True):
        assert was in BAD or was == now
    # What would be dropped anyway is not read unless it is needed
    assert set(loader.left_out) == set(BAD) or (drop_last and set(loader.left_out) < set(BAD))
    assert len(loader.left_out) == len(set(loader.left_out))


def test_the_place_of_a_damaged_sample_goes_to_the_next_that_no_batch_has(damaged):
    loader = opened(damaged([3, 4]), on_error="skip", shuffle=False)
    assert next(iter(loader))[1].tolist() == [0, 1, 2, 32, 33, 5, 6, 7]  # four batches are under way


@pytest.mark.parametrize("count", [7, 20, 30, 44, 45])
@pytest.mark.parametrize("drop_last", [True, False])
def test_skip_makes_the_epoch_shorter_where_samples_are_lacking(damaged, pixels, count, drop_last):
    bad = np.random.default_rng(count).permutation(COUNT)[:count].tolist()
    loader = opened(damaged(bad), on_error="skip", drop_last=drop_last)
    batches = within(60, lambda: list(loader))
    left = COUNT - count
    sizes = [8] * (left // 8) + ([left % 8] if left % 8 and not drop_last else [])
    assert [len(labels) for _, labels in batches] == sizes
    assert_each_image_is_of_its_label(batches, pixels)
    found = labels_of(batches)
    assert len(set(found)) == len(found) == sum(sizes)
    assert not set(found) & set(bad)
    assert sorted(loader.left_out) == sorted(bad) or drop_last


@pytest.mark.parametrize("how", ["skip", "substitute"])
def test_batches_do_not_depend_on_the_workers(damaged, how):
    path = damaged([*range(20), 40, 44])
    changes = {"stages": "rrc(24)|flip|normalize", "on_error": how, "drop_last": False, "epoch": 2}
    found = {
        (fingerprint(loader), tuple(loader.left_out))
        for workers in (1, 2)
        for _ in range(2)
        for loader in [opened(path, workers=workers, **changes)]
    }
    assert len(found) == 1


@pytest.mark.parametrize("how", ["skip", "substitute"])
def test_a_resumed_epoch_has_the_same_batches(damaged, how):
    path = damaged(BAD)
    whole = list(opened(path, on_error=how))
    resumed = list(opened(path, on_error=how).batches(0, 2))
    assert fingerprint(whole[2:]) == fingerprint(resumed)


def test_substitute_takes_another_sample_with_its_label(damaged, good, pixels):
    path, drawn = damaged(BAD), []
    for epoch in (0, 1):
        loader = opened(path, on_error="substitute", drop_last=False, epoch=epoch)
        batches = within(60, lambda loader=loader: list(loader))
        assert_each_image_is_of_its_label(batches, pixels)
        assert sorted(loader.left_out) == BAD
        clean, found = labels_of(opened(good, drop_last=False, epoch=epoch)), labels_of(batches)
        assert len(found) == COUNT
        assert not set(found) & set(BAD)
        assert all(was == now for was, now in zip(clean, found, strict=True) if was not in BAD)
        drawn.append({was: now for was, now in zip(clean, found, strict=True) if was in BAD})
    assert drawn[0] != drawn[1]
    assert len(set(drawn[0].values())) > 1


def test_no_more_than_twenty_damaged_samples_are_named(capsys):
    left_out = LeftOut()
    for _ in range(2):
        left_out.clear()
        for sample in [*range(30, 0, -1), 30, 1]:
            left_out.add(DamagedSample("a.beton", sample, "image", "truncated"), "left out")
        assert list(left_out) == list(range(30, 0, -1))
        assert 7 in left_out
    reported = capsys.readouterr().err.splitlines()
    assert reported[0] == "warning: sample 30 of a.beton is damaged (field 'image': truncated); it is left out"
    assert reported[20:] == ["warning: more samples of a.beton are damaged, counted in left_out only"]


def test_a_damaged_sample_counts_once_an_epoch_and_is_reported_once(damaged, capsys):
    loader = opened(damaged([5, 6]), on_error="skip", drop_last=False)
    for _ in range(3):
        list(loader)
        assert sorted(loader.left_out) == [5, 6]
    reported = capsys.readouterr().err.splitlines()
    assert len(reported) == 2
    for sample in (5, 6):
        assert sum(f"warning: sample {sample} of {loader.task.dataset} is damaged" in line for line in reported) == 1
    assert all("it is left out" in line for line in reported)


def test_ranks_make_the_same_number_of_steps(damaged):
    path, ranks = damaged(BAD), ({"rank": 0, "world_size": 2}, {"rank": 1, "world_size": 2})
    with pytest.raises(UserError, match="the same number of steps; set `on_error`='substitute'"):
        opened(path, on_error="skip", **ranks[0])
    shares = [labels_of(opened(path, on_error="skip", drop_last=False, **rank)) for rank in ranks]
    assert sorted(shares[0] + shares[1]) == [i for i in range(COUNT) if i not in BAD]
    assert [len(list(opened(path, on_error="substitute", **rank))) for rank in ranks] == [2, 2]


def test_repeated_augmentation_leaves_every_view_of_a_sample_out(tmp_path):
    path = write_beton(tmp_path / "many.beton", draw_photos(256, 10, 14), "jpg")
    loader = opened(damage(path, [9]), repeats=3, on_error="skip", shuffle=False)
    found = labels_of(loader)
    assert 9 not in found
    assert list(loader.left_out) == [9]
    assert found.count(8) == 3


def test_verify_finds_what_decoding_does_not(tmp_path):
    path = write_beton(tmp_path / "raw.beton", draw_photos(20, 30, 60), "raw")
    payload(path, 11)[0] ^= 1
    assert len(labels_of(opened(path))) == 16
    words = "sample 11 of .*raw.beton is damaged .field 'image': its checksum differs.; .*`on_error`='substitute'"
    with pytest.raises(DamagedSample, match=words):
        list(opened(path, verify=True, drop_last=False))
    assert 11 not in labels_of(opened(path, verify=True, on_error="skip"))
    card_path(path).unlink()
    with pytest.raises(UserError, match="raw.beton has no checksums; leave out `verify`, or write"):
        opened(path, verify=True)


@pytest.mark.parametrize("verify", [False, True])
def test_indices_out_of_range_are_an_index_error(good, verify):
    with BetonFile(good) as file:
        mapped = MappedFile(file, verify)
    for sample in (-1, COUNT, 1 << 40, -(1 << 62)):
        for samples in ([sample], [3, sample]):
            with pytest.raises(IndexError, match=f"sample {sample} of .*good.beton is out of range; it has 45"):
                mapped.check_numbers(np.array(samples))
    mapped.close()


@pytest.mark.parametrize("label", [-1, COUNT, 1 << 60])
def test_labels_that_are_no_class_are_a_user_error(damaged, label):
    """Stock files have no class names: without this a damaged label would ask for memory for 2**60."""
    path = damaged([])
    at = 24 + 2 * 1041 + 7 * 24 + 16
    np.memmap(path, "<i8", "r+", at, 1)[0] = label
    with pytest.raises(UserError, match="the tables of"):
        opened(path)
    card = card_path(path)
    card.write_text(card.read_text().replace('"checksums"', '"unknown"'))
    with pytest.raises(UserError, match=f"sample 7 of .* has the label {label}, not one of 0 to 44"):
        opened(path)
    card.unlink()
    if label != COUNT:
        with pytest.raises(UserError, match=f"sample 7 of .* has the label {label}"):
            opened(path)


def test_the_settings_reach_the_loaders_and_validation_counts_no_photo_twice(damaged):
    path = str(damaged(BAD))
    settings = SimpleNamespace(
        data=SimpleNamespace(
            train_dataset=path, val_dataset=path, num_workers=1, in_memory=1, loader="beton", on_error="substitute",
            verify=1, timed=0, plugins=None, cache=None, cache_gb=None, train_stages="rrc({res})",
            val_stages="center({res}, ratio={ratio})",
        ),
        training=SimpleNamespace(batch_size=8, seed=0, repeats=1),
        validation=SimpleNamespace(batch_size=8, resolution=24, crop_ratio=0.875),
        logging=SimpleNamespace(worst=0, predictions=0),
    )  # fmt: skip
    rank = SimpleNamespace(rank=0, world_size=1, device=torch.device("cpu"))
    data = Data(settings, rank, SimpleNamespace(dtype=None))
    training, validation = data.training(24), data.validation()
    assert (training.task.on_error, training.task.verify) == ("substitute", True)
    assert len(labels_of(training)) == 40
    assert sorted(labels_of(validation)) == [i for i in range(COUNT) if i not in BAD]
    assert sorted(validation.left_out) == BAD
    data.close()
    settings.data.on_error = "raise"
    with pytest.raises(DamagedSample):
        list(Data(settings, rank, SimpleNamespace(dtype=None)).validation())


LEFT = """
import gc, os, threading, psutil
from tests.support.loaders import task
from beton.errors import DamagedSample
from pipelines import open_pipeline

good, bad = sys.argv[1:]
def state():
    gc.collect()
    return threading.active_count(), len(os.listdir("/proc/self/fd")), psutil.Process().memory_info().rss / 2**20

def leave(loader):
    for _ in loader:
        break

def hold(loader):
    batches = iter(loader)
    next(batches)
    loader.close()

def fail(loader):
    try:
        list(loader)
    except DamagedSample:
        return
    raise SystemExit("no error")

def stop(loader):
    try:
        for _ in loader:
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass

def rounds(count):
    kept = open_pipeline("beton", task(good))
    for _ in range(count):
        leave(kept)
        hold(open_pipeline("beton", task(good)))
        fail(open_pipeline("beton", task(bad, drop_last=False)))
        stop(open_pipeline("beton", task(good)))
        iter(open_pipeline("beton", task(good)))
    del kept

rounds(5)
before = state()
rounds(40)
after = state()
assert after[:2] == before[:2], (before, after)
assert after[2] - before[2] < 10, (before, after)
print("flat")
"""


def test_two_hundred_abandoned_epochs_leave_no_thread_file_or_memory(good, damaged):
    """Left by break, by an error of the loader, by one of the caller, by close() and by forgetting it."""
    assert run_code(LEFT, good, damaged([17]), timeout=300).strip() == "flat"
