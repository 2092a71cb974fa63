"""The standard loader and the cached one: what the FFCV loader promises holds for them too."""

import shutil

import psutil
import pytest
import torch
from loading import fingerprint, labels_of, run_code, task, within
from torchvision.transforms import RandomHorizontalFlip

from pipelines.errors import DamagedSample, UserError
from pipelines.loaders import open_loader


@pytest.fixture
def opened():
    """open_loader("torch", ...) whose worker processes end with the test."""
    loaders = []

    def open_one(dataset, name="torch", **changes):
        loaders.append(open_loader(name, task(dataset, **changes)))
        return loaders[-1]

    yield open_one
    for loader in loaders:
        within(30, loader.close)


def test_samples_and_their_order_are_those_of_the_ffcv_loader(numbered, opened):
    for changes in ({}, {"seed": 4, "epoch": 2, "drop_last": False}, {"shuffle": False, "drop_last": False}):
        ours = opened(numbered["folder"], **changes)
        ffcv = open_loader("ffcv", task(numbered["beton"], **changes))
        assert labels_of(ours) == labels_of(ffcv)
        assert len(ours) == len(ffcv)
        assert (ours.num_samples, ours.classes) == (ffcv.num_samples, ffcv.classes)


@pytest.mark.parametrize("drop_last", [True, False])
def test_ranks_have_the_samples_that_the_ffcv_loader_gives_them(numbered, opened, drop_last):
    everything = []
    for rank in (0, 1):
        changes = {"rank": rank, "world_size": 2, "drop_last": drop_last, "workers": 1}
        share = labels_of(opened(numbered["folder"], **changes))
        assert share == labels_of(open_loader("ffcv", task(numbered["beton"], **changes)))
        everything += share
    assert len(set(everything)) == len(everything) == (32 if drop_last else 45)


def test_batches_are_the_same_for_any_number_of_workers_and_in_another_process(numbered, opened):
    code = """
from loading import fingerprint, task
from pipelines.loaders import open_loader
loader = open_loader("torch", task(sys.argv[1], workers=1))
print(fingerprint(loader))
loader.close()
"""
    found = {fingerprint(opened(numbered["folder"], workers=workers)) for workers in (1, 2, 1000)}
    assert found == {run_code(code, numbered["folder"]).strip()}


def test_an_epoch_opened_directly_equals_the_one_reached(numbered, opened):
    loader = opened(numbered["folder"])
    first, second = fingerprint(loader), fingerprint(loader)
    assert first != second
    assert fingerprint(opened(numbered["folder"], epoch=1)) == second
    next(iter(loader))
    assert fingerprint(loader) == fingerprint(opened(numbered["folder"], epoch=3))


def test_epochs_and_seeds_draw_other_augmentations_of_the_same_photos(numbered, opened):
    runs = [{}, {"epoch": 1}, {"seed": 1}]
    given = {"stages": "rrc(24)", "shuffle": False}
    first, *others = (torch.cat([i for i, _ in opened(numbered["folder"], **given, **run)]) for run in runs)
    for other in others:
        assert (first != other).flatten(1).any(1).float().mean() > 0.9


def test_iterators_keep_their_epochs(numbered, opened):
    loader = opened(numbered["folder"], workers=1)
    first, second = iter(loader), iter(loader)
    assert labels_of(first) == labels_of(open_loader("ffcv", task(numbered["beton"])))
    assert labels_of(second) == labels_of(open_loader("ffcv", task(numbered["beton"], epoch=1)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_images_have_the_form_and_the_type_of_the_task(numbered, opened, dtype):
    images, labels = next(iter(opened(numbered["folder"], dtype=dtype, workers=1)))
    assert images.shape == (8, 3, 24, 24) and images.dtype == dtype
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.shape == (8,) and labels.dtype == torch.int64


def test_without_normalize_images_are_the_pixels(numbered, opened):
    images, _ = next(iter(opened(numbered["folder"], stages="center(24)", workers=1)))
    assert images.dtype == torch.uint8 and images.shape == (8, 3, 24, 24)


def test_the_last_partial_batch_is_there(numbered, opened):
    loader = opened(numbered["folder"], stages="center(24)|normalize", shuffle=False, drop_last=False)
    found = list(loader)
    assert [len(labels) for _, labels in found] == [8] * 5 + [5] and len(loader) == 6
    assert labels_of(found) == list(range(45))


def test_its_images_are_nearly_those_of_the_ffcv_loader(numbered, opened):
    changes = {"stages": "center(24, 1)", "shuffle": False, "drop_last": False}
    ours = torch.cat([images for images, _ in opened(numbered["folder"], **changes)]).float()
    theirs = torch.cat([images for images, _ in open_loader("ffcv", task(numbered["beton"], **changes))])
    assert (ours - theirs).abs().mean() < 6  # they resize differently


def test_a_damaged_photo_is_an_error_that_names_the_file(numbered, tmp_path, opened):
    folder = shutil.copytree(numbered["folder"], tmp_path / "photos")
    bad = folder / "c017/photo.jpg"
    for content in (b"not a photo", bad.read_bytes()[:300]):
        bad.write_bytes(content)
        loader = opened(folder, drop_last=False)
        words = "c017/photo.jpg.*; mend or remove the photo, or set data.on_error=substitute"
        with pytest.raises(DamagedSample, match=words) as caught:
            within(30, lambda loader=loader: list(loader))
        assert caught.value.sample == 17
    bad.unlink()
    with pytest.raises(DamagedSample, match="c017/photo.jpg"):
        within(30, lambda: list(loader))


def test_an_exception_in_a_stage_names_the_photo(numbered, monkeypatch, opened):
    def broken(self, image):
        raise ZeroDivisionError("the stage is broken")

    monkeypatch.setattr(RandomHorizontalFlip, "forward", broken)
    loader = opened(numbered["folder"], workers=1, shuffle=False)
    with pytest.raises(RuntimeError, match="the stage is broken.*c000/photo.jpg"):
        within(30, lambda: list(loader))


def test_closing_ends_the_worker_processes(numbered):
    before = set(psutil.Process().children())
    loader = open_loader("torch", task(numbered["folder"]))
    next(iter(loader))
    started = set(psutil.Process().children()) - before
    assert len(started) >= 1
    within(30, loader.close)
    assert not psutil.wait_procs(started, timeout=10)[1]
    loader.close()


def test_the_callers_generators_and_threads_are_left_alone(numbered, opened):
    torch.manual_seed(7)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    list(opened(numbered["folder"]))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_what_cannot_be_used_is_a_user_error(numbered, tmp_path, opened):
    with pytest.raises(UserError, match="make the batch size smaller"):
        opened(numbered["folder"], batch_size=46)
    with pytest.raises(UserError, match="there is no folder"):
        opened(tmp_path / "nothing")
    with pytest.raises(UserError, match="begin with rrc"):
        opened(numbered["folder"], stages="flip")


@pytest.mark.parametrize("kind", ["folder", "beton"])
def test_cached_yields_the_first_batch_as_often_as_there_are_batches(numbered, opened, kind):
    """The same whichever epoch and batch a run goes on with."""
    children = set(psutil.Process().children())
    loader = opened(numbered[kind], "cached", epoch=1, start=2)
    assert set(psutil.Process().children()) <= children
    for count in (3, 5):
        found = list(loader)
        assert len(found) == count and len(loader) == 5
        assert len({images.data_ptr() for images, _ in found}) == 1
    source = opened(numbered[kind], "torch" if kind == "folder" else "ffcv")
    images, labels = next(iter(source))
    assert torch.equal(found[0][0], images) and torch.equal(found[0][1], labels)
    assert (loader.num_samples, loader.classes) == (source.num_samples, source.classes)
