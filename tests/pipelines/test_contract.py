"""What every pipeline promises (see beton/loading/base.py), asked of each by its name.

A new pipeline is tested here as soon as it is there. What one does not promise is in LACKS, with the reason in its
own file. For all betons and folders here the label of a photo is its number.
"""

import gc
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from beton.errors import DamagedSample, UserError
from pipelines import PIPELINES, missing, open_pipeline
from runtime.profiling.datasets import make
from tests.support.betons import copied, damage
from tests.support.loaders import fingerprint, images_of, labels_of, print_fingerprint, run_epoch, task, within
from tests.support.scripts import Forked

# Of other projects, as pipelines/_peer.py says
PEER = {"dtypes", "same pixels", "kept", "ranks", "damage"}
STREAM = PEER | {"orders", "resumes", "iterators"}
LACKS = {
    "cached": {"orders", "damage", "ranks"},  # the same batch again and again
    "torch": {"iterators"},  # its worker processes serve one epoch at a time
    "ffcv": {"dtypes", "same pixels", "kept", "ranks", "iterators", "damage", "torch alone"},
    "torchvision_v2": {"dtypes", "ranks", "damage", "iterators"},
    "albumentations": PEER | {"iterators"},
    "huggingface": {"dtypes", "ranks", "damage", "iterators"},
    "grain": PEER | {"clean"},  # Grain leaves the threads that read ahead to the garbage collector
    "spdl": PEER,
    "dali": PEER,
    "webdataset": STREAM,
    "litdata": STREAM,
    "mosaicml": STREAM | {"clean"},  # StreamingDataset keeps shared memory until its process ends
    "tf_data": STREAM | {"clean", "torch alone"},  # TensorFlow keeps its threads
}
pytestmark = pytest.mark.usefixtures("uncompiled")
IN_ORDER = {"shuffle": False, "drop_last": False}
LIMIT = 120  # seconds until it counts as a hang
BAD = [3, 4, 17, 30, 44]


def pipelines(promise=None):
    """Each pipeline that is installed and makes this promise."""
    names = [name for name in PIPELINES.names() if not missing(name)]
    return pytest.mark.parametrize("name", [name for name in names if promise not in LACKS.get(name, ())])


def data_of(name) -> str:
    reads = PIPELINES.get(name).reads
    return {"photos": "folder", "any": "beton"}.get(reads, reads)


@pytest.fixture(scope="module")
def numbered(numbered, tmp_path_factory):
    """The numbered photos in every form that a pipeline reads."""

    class Forms(dict):
        def __missing__(self, name):
            self[name] = make(name, Path(self["folder"]), tmp_path_factory.getbasetemp() / "made")
            return self[name]

    return Forms(numbered)


@pytest.fixture
def opened(numbered):
    """opened(name, **changes): a pipeline of the numbered photos, closed at the end of the test."""
    loaders = []

    def open_one(name, dataset=None, **changes):
        dataset = numbered[data_of(name)] if dataset is None else dataset
        loaders.append(within(LIMIT, lambda: open_pipeline(name, task(dataset, **changes))))
        return loaders[-1]

    yield open_one
    for loader in loaders:
        within(LIMIT, loader.close)


@pytest.fixture(scope="module")
def epoch(numbered):
    """epoch(name, **changes): the batches of an epoch, copied; each is read once for all tests."""
    found = {}

    def read(name, **changes):
        key = (name, *sorted(changes.items()))
        if key not in found:
            dataset = numbered[data_of(name)]
            found[key] = within(LIMIT, lambda: run_epoch(name, dataset, **changes))
        return found[key]

    return read


@pipelines()
def test_images_are_channels_last_and_normalised_and_labels_are_integers(opened, name):
    loader = opened(name)  # not in the thread of within(): litdata.optimize sets signal handlers
    images, labels = within(LIMIT, lambda: next(iter(loader)))
    assert images.shape == (8, 3, 24, 24) and images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.shape == (8,) and labels.dtype == torch.int64
    assert -2.2 < images.min() < 0 < images.max() < 2.7


@pipelines("dtypes")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_images_have_the_type_of_the_task(epoch, name, dtype):
    for (images, labels), (full, same) in zip(epoch(name, dtype=dtype), epoch(name), strict=True):
        assert torch.equal(images, full.to(dtype)) and torch.equal(labels, same)
        assert images.is_contiguous(memory_format=torch.channels_last)


@pipelines()
def test_without_normalize_images_are_the_pixels(epoch, name):
    images = epoch(name, stages="center(24)", **IN_ORDER)[0][0]
    assert images.dtype == torch.uint8 and images.shape == (8, 3, 24, 24)
    assert images.is_contiguous(memory_format=torch.channels_last)


@pipelines()
def test_a_loader_knows_its_length_its_classes_and_how_it_runs(opened, name):
    for changes, batches in (({}, 5), (IN_ORDER, 6)):
        loader = opened(name, stages="center(24)", **changes)
        assert len(loader) == batches
        assert loader.num_samples == 45
        assert loader.classes == [f"c{i:03d}" for i in range(45)]
        assert loader.description


@pipelines("orders")
def test_validation_has_every_sample_once_in_order_with_the_last_partial_batch(epoch, name):
    found = epoch(name, stages="center(24)", **IN_ORDER)
    assert [len(labels) for _, labels in found] == [8] * 5 + [5]
    assert labels_of(found) == list(range(45))


@pipelines("orders")
def test_training_drops_the_last_partial_batch(epoch, name):
    found = epoch(name)
    assert [len(labels) for _, labels in found] == [8] * 5
    assert len(set(labels_of(found))) == 40


@pipelines("orders")
def test_training_without_drop_last_has_every_sample_once_shuffled(epoch, name):
    found = labels_of(epoch(name, drop_last=False))
    assert sorted(found) == list(range(45)) and found != sorted(found)


@pipelines("same pixels")
def test_batches_are_the_same_for_any_number_of_workers_and_in_another_process(epoch, numbered, tmp_path, name):
    found = {fingerprint(epoch(name, workers=workers)) for workers in (1, 2, 1000)}
    process = Forked(tmp_path, print_fingerprint, name, str(numbered[data_of(name)]))
    assert process.end() == 0, process.errors
    assert found == {process.output.strip()}


@pipelines("orders")
def test_epochs_and_seeds_have_other_orders(epoch, name):
    assert len({tuple(labels_of(epoch(name, **run))) for run in ({}, {"epoch": 1}, {"seed": 9})}) == 3


@pipelines("orders")
def test_epochs_and_seeds_draw_other_augmentations_of_the_same_photos(epoch, name):
    first, *others = (epoch(name, stages="rrc(24)", **IN_ORDER, **run) for run in ({}, {"epoch": 1}, {"seed": 9}))
    for other in others:
        assert (images_of(first) != images_of(other)).flatten(1).any(1).float().mean() > 0.9


@pipelines("orders")
def test_an_epoch_opened_directly_has_the_samples_of_the_one_reached(opened, epoch, name):
    loader = opened(name)
    reached = [within(LIMIT, lambda: labels_of(loader)) for _ in range(2)]
    next(left := iter(loader))
    left.close()
    reached.append(within(LIMIT, lambda: labels_of(loader)))
    assert reached == [labels_of(epoch(name, epoch=number)) for number in (0, 1, 3)]


@pipelines("same pixels")
def test_an_epoch_opened_directly_equals_the_one_reached(opened, epoch, name):
    loader = opened(name)
    for number in range(2):
        assert fingerprint(loader) == fingerprint(epoch(name, epoch=number))


@pipelines("iterators")
def test_two_iterators_of_a_loader_do_not_disturb_each_other(opened, epoch, name):
    loader = opened(name, workers=1)
    pairs = within(LIMIT, lambda: list(zip(iter(loader), iter(loader), strict=True)))
    for number in (0, 1):
        assert fingerprint(pair[number] for pair in pairs) == fingerprint(epoch(name, epoch=number))


@pipelines("ranks")
@pytest.mark.parametrize("drop_last", [True, False])
def test_ranks_share_the_samples(opened, epoch, name, drop_last):
    given = {"world_size": 3, "batch_size": 4, "drop_last": drop_last, "workers": 1}
    alone = labels_of(epoch(name, batch_size=12, drop_last=drop_last))
    loaders = [opened(name, rank=rank, **given) for rank in range(3)]
    shares = [within(LIMIT, lambda loader=loader: list(loader)) for loader in loaders]
    assert [len(loader) for loader in loaders] == [len(share) for share in shares] == [3 if drop_last else 4] * 3
    for step in range(3):
        together = {label for share in shares for label in share[step][1].tolist()}
        assert together == set(alone[step * 12 : step * 12 + 12])
    everything = [label for share in shares for label in labels_of(share)]
    assert sorted(everything) == sorted(alone)
    assert len(alone) == (36 if drop_last else 45)


@pipelines("resumes")
def test_an_epoch_begins_at_any_batch_and_names_the_samples_of_each(opened, epoch, name):
    given = {"batch_size": 4, "seed": 5}
    whole, part = epoch(name, epoch=3, **given), opened(name, **given)
    found = within(LIMIT, lambda: [(images.clone(), labels.clone()) for images, labels in part.batches(3, 7)])
    assert len(found) == 4 and len(part) == len(whole) == 11
    assert labels_of(found) == labels_of(whole[7:])
    if "same pixels" not in LACKS.get(name, ()):
        assert fingerprint(found) == fingerprint(whole[7:])
        # The epochs after it, and before, are whole
        assert fingerprint(part.batches(4)) == fingerprint(epoch(name, epoch=4, **given))
        assert fingerprint(part) == fingerprint(epoch(name, epoch=0, **given))
    for number, (_, labels) in enumerate(whole):
        assert part.samples(3, number).tolist() == labels.tolist()


@pipelines("kept")
def test_a_batch_stays_as_it_is_while_it_is_held(opened, epoch, name):
    loader = opened(name)
    first, _ = next(iter(loader))
    part, as_numpy, kept = first[2:3, 1], first[5].numpy(), first.clone()
    del first
    for _ in range(5):
        whole = within(LIMIT, lambda: list(loader))
    assert torch.equal(part, kept[2:3, 1])
    assert (as_numpy == kept[5].numpy()).all()
    assert fingerprint(whole) == fingerprint(epoch(name, epoch=5))


@pipelines("clean")
def test_leaving_an_epoch_early_and_closing_leave_no_thread_no_process_and_no_file(opened, numbered, name):
    def leave():
        loader = open_pipeline(name, task(numbered[data_of(name)]))
        for _batch in loader:
            break
        loader.close()
        loader.close()

    def state():
        gc.collect()
        process = psutil.Process()
        running = [child.pid for child in process.children() if child.status() != psutil.STATUS_ZOMBIE]
        return set(threading.enumerate()), running, process.num_fds()

    within(LIMIT, leave)  # what is opened once
    threads, children, files = state()
    within(LIMIT, leave)
    left, deadline = state(), time.monotonic() + 30
    while not (left[0] <= threads and set(left[1]) <= set(children) and left[2] <= files):
        assert time.monotonic() < deadline, (left, threads, children, files)
        time.sleep(0.05)  # torch does not wait for the thread of a queue
        left = state()


@pipelines("torch alone")
def test_opening_and_reading_leaves_torchs_threads_and_generator_alone(opened, name):
    torch.manual_seed(7)
    before = torch.get_num_threads(), torch.get_rng_state()
    within(LIMIT, lambda: list(opened(name)))
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


@pipelines()
def test_the_task_is_not_changed(numbered, name):
    given = task(numbered[data_of(name)])
    copy = replace(given)
    loader = within(LIMIT, lambda: open_pipeline(name, given))
    within(LIMIT, lambda: next(iter(loader)))
    within(LIMIT, loader.close)
    assert given == copy


@pipelines()
def test_a_batch_larger_than_the_data_set_is_a_user_error(opened, epoch, name):
    for changes in ({"batch_size": 46}, {"batch_size": 23, "world_size": 2}):
        if "ranks" not in LACKS.get(name, ()) or "world_size" not in changes:
            with pytest.raises(UserError, match="make `batch_size` smaller"):
                opened(name, **changes)
    assert len(epoch(name, batch_size=46, stages="center(24)", **IN_ORDER)) == 1


@pipelines()
def test_what_cannot_be_used_is_a_user_error(opened, numbered, tmp_path, name):
    with pytest.raises(UserError, match="there is no f"):
        opened(name, tmp_path / "nothing")
    with pytest.raises(UserError, match="begin with rrc"):
        opened(name, stages="flip|rrc(9)")
    if PIPELINES.get(name).reads != "any":
        with pytest.raises(UserError):
            opened(name, numbered["beton" if data_of(name) == "folder" else "folder"])


@pytest.fixture
def damaged(numbered, tmp_path):
    """damaged(name, samples): what a pipeline reads, these samples damaged."""

    def make(name, samples=BAD):
        if data_of(name) == "beton":
            return damage(copied(numbered["beton"], tmp_path / "bad.beton"), samples)
        folder = shutil.copytree(numbered["folder"], tmp_path / "photos")
        for sample in samples:
            (folder / f"c{sample:03d}/photo.jpg").write_bytes(b"nothing")
        return folder

    return make


@pipelines("damage")
def test_a_damaged_sample_is_an_error_that_names_it(opened, damaged, name):
    loader = opened(name, damaged(name, [17]), **IN_ORDER)
    arrived = []
    with pytest.raises(DamagedSample, match="; .*`on_error`='substitute'") as caught:
        within(LIMIT, lambda: arrived.extend(loader))
    assert caught.value.sample == 17
    assert labels_of(arrived) == list(range(16))


@pipelines("damage")
def test_damaged_samples_are_left_out(opened, damaged, numbered, capfd, name):
    loader = opened(name, damaged(name), on_error="skip", workers=1, **IN_ORDER)
    found = within(LIMIT, lambda: list(loader))
    assert sorted(labels_of(found)) == [i for i in range(45) if i not in BAD]
    assert sorted(loader.left_out) == BAD
    assert "warning: sample 3 of" in capfd.readouterr().err
    whole = images_of(run_epoch(name, numbered[data_of(name)], workers=1, **IN_ORDER))
    for images, labels in found:
        assert torch.equal(images, whole[labels])


@pipelines("damage")
def test_damaged_samples_are_replaced_by_the_same_ones_whatever_the_pipeline(opened, damaged, epoch, numbered, name):
    loader = opened(name, damaged(name), on_error="substitute", drop_last=False, workers=1)
    found, clean = within(LIMIT, lambda: labels_of(loader)), labels_of(epoch(name, drop_last=False))
    assert len(found) == 45 and not set(found) & set(BAD)
    assert all(was == now for was, now in zip(clean, found, strict=True) if was not in BAD)
    assert sorted(loader.left_out) == BAD
    ours = damage(copied(numbered["beton"], numbered["beton"].with_name("ours.beton")), BAD)
    assert found == labels_of(run_epoch("beton", ours, on_error="substitute", drop_last=False))


@pipelines("damage")
def test_substitution_gives_up_where_all_are_damaged(opened, damaged, name):
    loader = opened(name, damaged(name, range(45)), on_error="substitute", workers=1)
    with pytest.raises(UserError, match="^100 .* that could replace [^\n]*$"):
        within(LIMIT, lambda: list(loader))


@pytest.mark.parametrize("name", ["cached", "ffcv", "torchvision_v2"])
def test_pipelines_that_do_not_know_what_to_do_with_damage_say_so(opened, name):
    for how in ("skip", "substitute"):
        with pytest.raises(UserError, match=f"'{name}' cannot {how} .* set `on_error`='raise'"):
            opened(name, on_error=how)
    with pytest.raises(UserError, match=f"'{name}' has no checksums"):
        opened(name, verify=True)


@pytest.mark.parametrize("name", ["ffcv", "torch", "torchvision_v2"])
def test_pipelines_that_do_not_read_in_pages_refuse_to_keep_to_a_memory(opened, name):
    with pytest.raises(UserError, match=f"'{name}' does not read in pages.*leave out `cache_gb`"):
        opened(name, in_memory=False, cache_gb=0.5)


def test_an_unknown_pipeline_is_a_user_error(opened, numbered):
    with pytest.raises(UserError, match="did you mean 'ffcv'.*use one of .*beton, cached.*, torch"):
        opened("fcv", numbered["beton"])
