"""An albumentations transform on each image and a Kornia module on the batch, where these are installed."""

import pytest
import torch

import beton
from tests.support.betons import write_beton
from tests.support.photos import draw_photos


def images(path, stages, epoch=0, **given):
    with beton.Loader(path, 8, image=stages, shuffle=False, **given) as loader:
        return torch.cat([batch.image for batch in loader.batches(epoch)])


def albumentations_stages():
    a = pytest.importorskip("albumentations")
    drawn = a.Compose([a.ColorJitter(p=1), a.GaussNoise(p=0.5), a.HorizontalFlip()])
    return ["rrc(32)", beton.on_image(drawn, "named"), "normalize"]


def kornia_stages():
    augmentation = pytest.importorskip("kornia.augmentation")
    jitter = augmentation.ColorJiggle(0.2, 0.2, 0.2, 0.1, p=1.0)
    return ["rrc(32)|normalize", beton.on_batch(torch.nn.Sequential(jitter, augmentation.RandomHorizontalFlip()))]


@pytest.mark.parametrize("stages", [albumentations_stages, kornia_stages])
def test_what_it_draws_depends_on_seed_and_epoch_alone(tmp_path, stages):
    path = write_beton(tmp_path / "photos.beton", draw_photos(40, 40, 60))
    first, plain = images(path, stages(), workers=1, seed=4), images(path, "rrc(32)|normalize", workers=1, seed=4)
    assert first.shape == plain.shape and not torch.equal(first, plain)
    torch.manual_seed(1)
    assert torch.equal(first, images(path, stages(), workers=2, seed=4))
    assert not torch.equal(first, images(path, stages(), workers=2, seed=5))
    assert not torch.equal(first, images(path, stages(), 1, workers=2, seed=4))
