"""The pipeline ffcv, beside the contract: it is stock FFCV 1.0.2, and says what that cannot do."""

import threading

import numpy as np
import pytest
import torch

from beton.errors import UserError
from pipelines import open_pipeline
from tests.support.betons import write_beton
from tests.support.loaders import images_of, labels_of, run_epoch, task, within
from tests.support.photos import draw

pytestmark = pytest.mark.usefixtures("uncompiled")
CENTER = {"stages": "center(24, ratio=0.875)", "shuffle": False, "drop_last": False}


def by_hand(path):
    """All images and labels, read as FFCV's documentation does it."""
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import CenterCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption

    pipelines = {"image": [CenterCropRGBImageDecoder((24, 24), ratio=0.875)], "label": [IntDecoder()]}
    loader = Loader(str(path), 8, num_workers=2, order=OrderOption.SEQUENTIAL, drop_last=False, pipelines=pipelines)
    batches = [(images.copy(), labels.copy()) for images, labels in loader]
    return map(np.concatenate, zip(*batches, strict=True))


def test_a_centre_crop_is_that_of_ffcv_used_by_hand(numbered):
    images, labels = within(60, lambda: by_hand(numbered["beton"]))
    found = within(60, lambda: run_epoch("ffcv", numbered["beton"], **CENTER))
    np.testing.assert_array_equal(images_of(found).permute(0, 2, 3, 1).numpy(), images)
    assert labels_of(found) == labels[:, 0].tolist() == list(range(45))


def test_our_centre_crop_is_stock_ffcvs_but_for_its_less_exact_decoding(numbered):
    ours, theirs = (
        images_of(within(60, lambda name=name: run_epoch(name, numbered["beton"], **CENTER))).int().numpy()
        for name in ("beton", "ffcv")
    )
    difference = np.abs(ours - theirs)
    assert difference.mean() < 2 and np.quantile(difference, 0.999) <= 10


def test_what_it_copies_to_a_device_is_normalised_there(numbered, monkeypatch):
    """FFCV's ToDevice takes the CPU for a device, too."""
    given = CENTER | {"stages": "center(24, ratio=0.875)|normalize"}
    expected = within(60, lambda: run_epoch("ffcv", numbered["beton"], **given))
    monkeypatch.setattr(
        type(open_pipeline("ffcv", task(numbered["beton"]))), "_copies_to", lambda _: torch.device("cpu")
    )
    found = within(60, lambda: run_epoch("ffcv", numbered["beton"], **given))
    assert labels_of(found) == labels_of(expected)
    for (before, _), (after, _) in zip(expected, found, strict=True):
        assert after.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)


def test_photos_of_the_right_size_are_moved_and_painted_but_not_resized(tmp_path):
    photos = [draw(seed, 16, 16, noise=40) for seed in range(9)]
    path = write_beton(tmp_path / "small.beton", photos)
    given = {
        "shuffle": False,
        "drop_last": False,
        "stages": "center(16, 1)|translate(1, (7, 8, 9))|cutout(3, (1, 2, 3))",
    }
    found = images_of(within(60, lambda: run_epoch("ffcv", path, **given))).permute(0, 2, 3, 1).numpy()
    for photo, image in zip(photos, found, strict=True):
        painted = (image == (1, 2, 3)).all(axis=2)
        assert painted.sum() == 9
        padded = np.pad(photo, ((1, 1), (1, 1), (0, 0)))
        padded[[0, -1]] = padded[:, [0, -1]] = 7, 8, 9
        moved = [padded[y : y + 16, x : x + 16] for y in range(3) for x in range(3)]
        assert any((image == one).all(axis=2)[~painted].all() for one in moved)


def test_the_order_is_ffcvs_own_and_follows_seed_and_epoch(numbered):
    for epoch in (2, 3):
        found = within(60, lambda epoch=epoch: run_epoch("ffcv", numbered["beton"], drop_last=False, epoch=epoch))
        assert labels_of(found) == np.random.default_rng(epoch).permutation(45).tolist()


def test_a_failure_is_an_exception_and_leaves_no_thread(numbered):
    before = set(threading.enumerate())
    loader = open_pipeline("ffcv", task(numbered["beton"]))
    assert "FFCV 1.0.2" in loader.description and "used again" in loader.description

    def broken(**_):
        raise ValueError("a stage broke")

    loader._stock.code = [(broken, [])], []
    with pytest.raises(RuntimeError, match="FFCV failed in batch 1 of"):
        within(60, lambda: list(loader))
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stages": "rrc(24)|gray|normalize"}, "no stage 'gray'"),
        ({"stages": "rrc(24, interpolation='bicubic')"}, "no interpolation 'bicubic'"),
        ({"repeats": 3}, "no repeated augmentation; use the pipeline beton"),
        ({"world_size": 2}, "one process only; use the pipeline beton"),
        ({"dtype": torch.bfloat16}, "not torch.bfloat16; use the pipeline beton"),
        ({"device": "meta"}, "cannot copy to meta; use the pipeline beton"),
        ({"batch_size": 64}, "too few for one batch"),
    ],
)
def test_what_ffcv_cannot_do_is_said(numbered, changes, words):
    with pytest.raises(UserError, match=words):
        open_pipeline("ffcv", task(numbered["beton"], **changes))
