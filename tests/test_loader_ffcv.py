"""The FFCV loader: the same batches whatever the workers, each sample once, batches that may be kept."""

import gc
import threading
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
from loading import draw_photos, fingerprint, labels_of, run_code, task, write_beton

from pipelines import slots
from pipelines.errors import UserError
from pipelines.loaders import open_loader


def batches(dataset, **changes):
    """One epoch as a list."""
    return list(open_loader("ffcv", task(dataset, **changes)))


@pytest.mark.parametrize("in_memory", [True, False])
def test_batches_are_the_same_for_any_number_of_workers(numbered, in_memory):
    found = {fingerprint(batches(numbered["beton"], workers=w, in_memory=in_memory)) for w in (1, 2, 1000, 0)}
    assert len(found) == 1


def test_batches_are_the_same_in_another_process(numbered):
    code = """
from loading import fingerprint, task
from pipelines.loaders import open_loader
print(fingerprint(open_loader("ffcv", task(sys.argv[1], workers=1, seed=3))))
"""
    assert run_code(code, numbered["beton"]).strip() == fingerprint(batches(numbered["beton"], seed=3))


def test_an_epoch_opened_directly_equals_the_one_reached(numbered):
    loader = open_loader("ffcv", task(numbered["beton"]))
    reached = [fingerprint(loader) for _ in range(3)]
    assert len(set(reached)) == 3
    assert [fingerprint(batches(numbered["beton"], epoch=epoch)) for epoch in range(3)] == reached


def test_an_epoch_after_one_left_early_is_the_right_one(numbered):
    loader = open_loader("ffcv", task(numbered["beton"]))
    next(iter(loader))
    assert fingerprint(loader) == fingerprint(batches(numbered["beton"], epoch=1))


def test_two_iterators_of_a_loader_do_not_disturb_each_other(numbered):
    loader = open_loader("ffcv", task(numbered["beton"]))
    first, second = iter(loader), iter(loader)
    pairs = list(zip(first, second, strict=True))
    for epoch in (0, 1):
        assert fingerprint(pair[epoch] for pair in pairs) == fingerprint(batches(numbered["beton"], epoch=epoch))


def test_another_seed_gives_another_epoch(numbered):
    assert fingerprint(batches(numbered["beton"], seed=1)) != fingerprint(batches(numbered["beton"]))


@pytest.mark.parametrize("stages", ["rrc(24)", "center(24)|flip"])
def test_epochs_and_seeds_draw_other_augmentations_of_the_same_photos(numbered, stages):
    runs = [{}, {"epoch": 1}, {"seed": 1}]
    given = {"stages": stages, "shuffle": False, "drop_last": False}
    first, *others = (torch.cat([i for i, _ in batches(numbered["beton"], **given, **run)]) for run in runs)
    for other in others:
        changed = (first != other).flatten(1).any(1).float().mean()
        assert changed > 0.9 if "rrc" in stages else 0.2 < changed < 0.8


def test_validation_has_every_sample_once_in_order_with_the_last_partial_batch(numbered):
    given = {"stages": "center(24)|normalize", "shuffle": False, "drop_last": False}
    loader = open_loader("ffcv", task(numbered["beton"], **given))
    found = list(loader)
    assert [len(labels) for _, labels in found] == [8, 8, 8, 8, 8, 5]
    assert len(loader) == 6 and loader.num_samples == 45
    assert labels_of(found) == list(range(45))
    assert loader.classes == [f"c{i:03d}" for i in range(45)]


def test_training_drops_the_last_partial_batch(numbered):
    loader = open_loader("ffcv", task(numbered["beton"]))
    found = list(loader)
    assert [len(labels) for _, labels in found] == [8] * 5 and len(loader) == 5
    assert len(set(labels_of(found))) == 40


@pytest.mark.parametrize("in_memory", [True, False])
def test_training_without_drop_last_has_every_sample_once_shuffled(numbered, in_memory):
    found = labels_of(batches(numbered["beton"], drop_last=False, in_memory=in_memory))
    assert sorted(found) == list(range(45)) and found != sorted(found)


@pytest.mark.parametrize("drop_last", [True, False])
def test_ranks_share_the_samples(numbered, drop_last):
    given = {"world_size": 3, "batch_size": 4, "drop_last": drop_last}
    alone = labels_of(batches(numbered["beton"], batch_size=12, drop_last=drop_last))
    loaders = [open_loader("ffcv", task(numbered["beton"], rank=rank, **given)) for rank in range(3)]
    shares = [list(loader) for loader in loaders]
    assert [len(loader) for loader in loaders] == [len(share) for share in shares] == [3 if drop_last else 4] * 3
    for step in range(3):
        together = {label for share in shares for label in share[step][1].tolist()}
        assert together == set(alone[step * 12 : step * 12 + 12])
    everything = [label for share in shares for label in labels_of(share)]
    assert sorted(everything) == sorted(alone)
    assert len(alone) == (36 if drop_last else 45)


def test_images_do_not_depend_on_the_rank_that_reads_them(numbered):
    given = {"shuffle": False, "drop_last": False, "batch_size": 1}
    alone = torch.cat([images for images, _ in batches(numbered["beton"], **given)])
    for rank in (0, 1):
        share = batches(numbered["beton"], rank=rank, world_size=2, **given)
        assert torch.equal(torch.cat([images for images, _ in share]), alone[rank::2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_images_have_the_form_and_the_type_of_the_task(numbered, dtype):
    images, labels = batches(numbered["beton"], dtype=dtype)[0]
    assert images.shape == (8, 3, 24, 24) and images.dtype == dtype
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.shape == (8,) and labels.dtype == torch.int64
    full = batches(numbered["beton"])[0][0]
    assert torch.equal(images, full.to(dtype))


def test_without_normalize_images_are_the_pixels(numbered):
    stages = "rrc(24)|flip"
    pixels = batches(numbered["beton"], stages=stages)[0][0]
    assert pixels.dtype == torch.uint8 and pixels.shape == (8, 3, 24, 24)
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    numbers = batches(numbered["beton"], stages=f"{stages}|normalize(mean=(0, 0, 0), std=(1, 1, 1))")[0][0]
    assert torch.equal((numbers * 255).round().to(torch.uint8), pixels)


def test_a_held_batch_is_never_overwritten(numbered):
    loader = open_loader("ffcv", task(numbered["beton"]))
    first, _ = next(iter(loader))
    part, as_numpy, kept = first[2:3, 1], first[5].numpy(), first.clone()
    del first
    for _ in range(5):
        whole = list(loader)
        assert len({images.data_ptr() for images, _ in whole}) == len(whole)
    assert torch.equal(part, kept[2:3, 1])
    np.testing.assert_array_equal(as_numpy, kept[5].numpy())
    again = open_loader("ffcv", task(numbered["beton"], epoch=5))
    for (held, _), (fresh, _) in zip(whole, again, strict=True):
        assert torch.equal(held, fresh)


def test_dropped_batches_leave_their_memory_to_later_ones(numbered, monkeypatch):
    taken, take = {}, slots.SlotPool.take

    def counted(self):
        slot = take(self)
        taken[id(slot)] = slot
        return slot

    monkeypatch.setattr(slots.SlotPool, "take", counted)
    loader = open_loader("ffcv", task(numbered["beton"]))
    for _ in range(50):
        for _images, _labels in loader:
            pass
    assert len(taken) <= 6  # three ahead, one handed over, one in use, one to spare


def test_leaving_an_epoch_early_leaves_no_thread_and_no_file(numbered):
    loader = open_loader("ffcv", task(numbered["beton"]))
    before, files = set(threading.enumerate()), psutil.Process().num_fds()
    for _ in range(50):
        for _images, _labels in loader:
            break
    assert set(threading.enumerate()) <= before
    assert psutil.Process().num_fds() <= files
    iterator = iter(loader)
    next(iterator)
    assert set(threading.enumerate()) > before
    del iterator
    assert set(threading.enumerate()) <= before


def test_a_dropped_loader_leaves_no_file_open(numbered):
    gc.collect()
    files = psutil.Process().num_fds()
    for _ in range(5):
        loader = open_loader("ffcv", task(numbered["beton"]))
        next(iter(loader))
        loader.close()
    loader.close()
    del loader
    assert psutil.Process().num_fds() <= files


def test_opening_and_reading_leaves_torchs_threads_and_generators_alone(numbered):
    torch.manual_seed(7)
    np.random.seed(7)
    before = torch.get_num_threads(), torch.get_rng_state(), np.random.get_state()[1].tolist()
    batches(numbered["beton"])
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert np.random.get_state()[1].tolist() == before[2]


def test_the_task_is_not_changed(numbered):
    given = task(numbered["beton"])
    copy = replace(given)
    list(open_loader("ffcv", given))
    assert given == copy


@pytest.mark.parametrize("changes", [{"batch_size": 46}, {"batch_size": 23, "world_size": 2}])
def test_a_batch_larger_than_the_data_set_is_a_user_error(numbered, changes):
    with pytest.raises(UserError, match="make the batch size smaller"):
        open_loader("ffcv", task(numbered["beton"], **changes))
    assert len(batches(numbered["beton"], drop_last=False, **changes)) == 1


def test_raw_and_jpeg_photos_may_be_mixed(tmp_path):
    photos = draw_photos(20, 30, 60)
    raw, mixed = (write_beton(tmp_path / f"{mode}.beton", photos, mode) for mode in ("raw", "proportion"))
    given = {"stages": "center(24)", "shuffle": False, "drop_last": False}
    exact, near = (torch.cat([i for i, _ in batches(path, **given)]).int() for path in (raw, mixed))
    distance = (exact - near).abs().amax((1, 2, 3))
    assert (distance == 0).sum() == 10 and distance.max() < 40
