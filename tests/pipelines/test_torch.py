"""The pipeline torch, beside the contract: the samples of ours, nearly its images, and files that name themselves."""

import shutil

import pytest
from torchvision.transforms import RandomHorizontalFlip

from beton.errors import DamagedSample, UserError
from pipelines import open_pipeline
from tests.support.loaders import images_of, labels_of, run_epoch, task, within


@pytest.fixture
def opened():
    """opened(folder, **changes): a loader whose worker processes end with the test."""
    loaders = []

    def open_one(folder, **changes):
        loaders.append(open_pipeline("torch", task(folder, **changes)))
        return loaders[-1]

    yield open_one
    for loader in loaders:
        within(60, loader.close)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"seed": 4, "epoch": 2, "drop_last": False},
        *({"rank": rank, "world_size": 2, "drop_last": last} for rank in (0, 1) for last in (True, False)),
    ],
)
def test_samples_and_their_order_are_those_of_our_loader(numbered, changes):
    changes = {"workers": 1} | changes
    theirs = labels_of(run_epoch("torch", numbered["folder"], **changes))
    assert theirs == labels_of(run_epoch("beton", numbered["beton"], **changes))


def test_iterators_keep_their_epochs(numbered, opened):
    loader = opened(numbered["folder"], workers=1)
    first, second = iter(loader), iter(loader)
    for epoch, iterator in enumerate((first, second)):
        assert labels_of(iterator) == labels_of(run_epoch("beton", numbered["beton"], epoch=epoch))


def test_an_epoch_within_which_another_was_begun_is_an_error(numbered, opened):
    loader = opened(numbered["folder"], workers=1)
    first, second = loader.batches(0), loader.batches(1)
    next(first)
    began = next(second)
    with pytest.raises(RuntimeError, match="another epoch of this loader has begun; read one at a time"):
        next(first)
    assert labels_of([began, *second]) == labels_of(run_epoch("beton", numbered["beton"], epoch=1))


def test_its_images_are_nearly_those_of_our_loader(numbered):
    changes = {"stages": "center(24, 1)", "shuffle": False, "drop_last": False}
    theirs = images_of(run_epoch("torch", numbered["folder"], **changes)).float()
    ours = images_of(run_epoch("beton", numbered["beton"], **changes))
    assert (theirs - ours).abs().mean() < 6  # they resize differently


def test_a_damaged_photo_is_an_error_that_names_the_file(numbered, tmp_path, opened):
    folder = shutil.copytree(numbered["folder"], tmp_path / "photos")
    bad = folder / "c017/photo.jpg"
    for content in (b"not a photo", bad.read_bytes()[:300]):
        bad.write_bytes(content)
        loader = opened(folder, drop_last=False, workers=1)
        words = "c017/photo.jpg.*; correct or remove the photo, or set `on_error`='substitute'"
        with pytest.raises(DamagedSample, match=words) as caught:
            within(60, lambda loader=loader: list(loader))
        assert caught.value.sample == 17
    bad.unlink()
    with pytest.raises(DamagedSample, match="c017/photo.jpg"):
        within(60, lambda: list(loader))


def test_an_exception_in_a_stage_names_the_photo(numbered, monkeypatch, opened):
    def broken(self, image):
        raise ZeroDivisionError("the stage is broken")

    monkeypatch.setattr(RandomHorizontalFlip, "forward", broken)
    loader = opened(numbered["folder"], workers=1, shuffle=False)
    with pytest.raises(RuntimeError, match="the stage is broken.*c000/photo.jpg"):
        within(60, lambda: list(loader))


def test_left_out_photos_cannot_be_made_up_for_in_full_batches(numbered, opened):
    with pytest.raises(UserError, match="'torch' cannot fill up a batch; set `on_error`='substitute'"):
        opened(numbered["folder"], on_error="skip")
