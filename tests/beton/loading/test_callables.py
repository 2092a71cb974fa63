"""Transforms of other libraries in a pipeline, on each image or on the batch, and what they draw; own stages."""

import gc
import pickle
import random
import weakref

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from timm.data.auto_augment import rand_augment_transform
from torch import nn
from torchvision.transforms import v2

import beton
from beton.stages.parse import STAGES
from tests.support.betons import write_beton
from tests.support.photos import draw_photos
from tests.support.scripts import forked, options
from tests.support.training import RESNET


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_beton(tmp_path_factory.mktemp("callables") / "photos.beton", draw_photos(60, 40, 60))


def images(path, stages, epoch=0, **given):
    with beton.Loader(path, 8, image=stages, **({"workers": 2, "shuffle": False} | given)) as loader:
        return torch.cat([batch.image for batch in loader.batches(epoch)])


def python_and_numpy(image):
    """Draws from all generators that the process has, and from a fresh one."""
    noise = np.random.randint(0, 50) + random.randint(0, 50) + int(np.random.default_rng().integers(50))
    return Image.fromarray(np.asarray(image) // 2 + np.uint8(noise))


class Noise(nn.Module):
    """On the batch: noise of torch, and of Python and NumPy."""

    def forward(self, batch):
        return batch + torch.randn_like(batch) + random.random() + np.random.random() + torch.rand(1)


def named(image):
    return {"image": image[:, ::-1]}


def inverted(batch):
    return 255 - batch


DRAWING = {
    "v2": v2.Compose([v2.ColorJitter(0.4, 0.4, 0.4, 0.1), v2.RandomRotation(20), v2.RandomApply([v2.GaussianBlur(3)])]),
    "v2 on tensors": beton.on_image(v2.Compose([v2.RandAugment(), v2.RandomPhotometricDistort()]), "tensor"),
    "timm": rand_augment_transform("rand-m9-mstd0.5-inc1", {}),
    "python and numpy": python_and_numpy,
    "batch": beton.on_batch(Noise()),
}


@pytest.mark.parametrize("name", DRAWING)
def test_what_is_drawn_depends_on_seed_epoch_and_sample_alone(path, name):
    stages = ["rrc(32)|flip", *([DRAWING[name], "normalize"] if name != "batch" else ["normalize", DRAWING[name]])]
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    first = images(path, stages, workers=1, seed=4)
    assert states[0] == random.getstate() and states[1] == np.random.get_state()[1].tolist()
    assert torch.equal(states[2], torch.get_rng_state())  # the user's own are as they were
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert torch.equal(first, images(path, stages, workers=2, seed=4))
    assert not torch.equal(first, images(path, stages, seed=5))
    assert not torch.equal(first, images(path, stages, epoch=1, seed=4))
    assert not torch.equal(first, images(path, "rrc(32)|flip|normalize", seed=4))


def test_samples_and_views_draw_differently(path):
    given = {"views": {"pair": (["center(32)", python_and_numpy], 2)}, "columns": [], "shuffle": False, "workers": 2}
    with beton.Loader(path, 60, **given) as loader:
        ((first, second),) = next(iter(loader))
    plain = images(path, "center(32)")
    shifts = [(view.int() - plain.int() // 2).flatten(1).float().mean(1) for view in (first, second)]
    assert len(set(shifts[0].tolist())) > 20 and (shifts[0] != shifts[1]).float().mean() > 0.9


@pytest.mark.parametrize(
    "call",
    [
        ImageOps.invert,
        beton.on_image(lambda image: 255 - image, "array"),
        beton.on_image(lambda image: 255 - image, "tensor"),
        beton.on_image(lambda image: {"image": 255 - image}, "named"),
        beton.on_batch(inverted),
    ],
)
def test_each_form_is_called_with_what_it_takes(path, call):
    assert torch.equal(images(path, ["center(32)", call]), 255 - images(path, "center(32)"))


def test_a_module_is_called_with_the_batch_only_where_that_is_said(path):
    """torchvision's transforms are nn.Modules too: a bare one gets images."""
    seen = []

    class Look(nn.Module):
        def forward(self, given):
            seen.append(given)
            return given

    images(path, ["center(32)", Look()])
    assert all(isinstance(given, Image.Image) for given in seen) and len(seen) == 60
    seen.clear()
    images(path, ["center(32)|normalize", beton.on_batch(Look())])
    assert [given.shape for given in seen] == [(8, 3, 32, 32)] * 7 + [(4, 3, 32, 32)]


def test_in_dicts_views_and_other_processes(path):
    views = {"global": (["center(32)", beton.on_batch(inverted)], 2)}
    with beton.Loader(path, 8, views=views, image="center(32)", as_dict=True) as loader:
        for loaded in (loader, pickle.loads(pickle.dumps(loader))):
            for batch in loaded:
                assert all(torch.equal(view, 255 - batch["image"]) for view in batch["global"])


def test_its_share_is_told_once_with_the_stages_that_do_the_same(path, capfd):
    jitter = v2.Compose([v2.ColorJitter(0.4), v2.RandomHorizontalFlip()])
    with beton.Loader(path, 8, image=["rrc(32)", jitter, "normalize"], workers=2) as loader:
        for _ in range(12):
            list(loader)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("note:")]
    assert "Compose takes" in line and "'image'" in line
    assert line.endswith("compiled stages that do the same: flip, jitter")


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([v2.RandomCrop(8)], "must have one crop stage, and first"),
        (["center(32)", 7], "neither text nor a list of text and callables"),
        (["center(32)", beton.on_batch(inverted), "normalize"], "put what is called with the batch last"),
        (["center(32)|normalize", ImageOps.invert], "out of order"),
    ],
)
def test_wrong_pipelines_are_errors_that_say_what_to_do(path, stages, words):
    with pytest.raises(beton.UserError, match=words):
        images(path, stages)


def test_what_a_callable_makes_must_be_an_image_of_the_same_size(path):
    for wrong in (v2.CenterCrop(8), v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32)])):
        with pytest.raises(beton.UserError, match="leave sizes to the crop, numbers to the stage normalize"):
            images(path, ["center(32)", wrong])
    with pytest.raises(RuntimeError, match="a stage failed .*ZeroDivisionError.*field 'image'"):
        images(path, ["center(32)", lambda image: 1 / 0])
    with pytest.raises(beton.UserError, match="holds no photos, and its stages have callables"):
        beton.Loader(path, 8, image="center(8)", label=[ImageOps.invert])


OWN = '''
import beton
from beton.stages.base import Pixels


@beton.stage
def darker(image, rng, low=0.5):
    return (image * rng.uniform(low, 1)).astype("uint8")


@beton.stage
class Swapped(Pixels):
    """Red and blue change places."""

    keeps_places = True

    def apply(self, images, keys):
        images[:] = images[..., ::-1].copy()

    def reference(self):
        return lambda image: image
'''


def test_own_stages_work_in_text_and_in_scripts(path, betons, tmp_path):
    (tmp_path / "my_stages.py").write_text(OWN)
    from beton.plugins import load_file

    try:
        assert load_file(tmp_path / "my_stages.py") is load_file(tmp_path / "my_stages.py")
        plain = images(path, "center(32)")
        assert torch.equal(images(path, "center(32)|swapped"), plain.flip(1))
        dark = images(path, "center(32)|darker(low=0.1)", workers=1)
        assert torch.equal(dark, images(path, "center(32)|darker(low=0.1)")) and (dark <= plain).all()
        assert len({round(float(d.sum() / p.sum()), 2) for d, p in zip(dark, plain, strict=True)}) > 20
        with pytest.raises(beton.UserError, match="wrong arguments in the stage 'darker.high=1.'"):
            images(path, "center(32)|darker(high=1)")
    finally:
        STAGES.remove("darker"), STAGES.remove("swapped")
    with pytest.raises(beton.UserError, match="there is no Python file"):
        load_file(tmp_path / "nowhere.py")
    given = {"data.train_dataset": betons["train"], "data.val_dataset": betons["val"], "training.device": "cpu"}
    given |= {"data.train_stages": "rrc({res})|swapped|darker|normalize", "data.plugins": tmp_path / "my_stages.py"}
    given |= {"training.epochs": 1, "training.resume": None, "lr.lr_peak_epoch": 0.5, "logging.folder": tmp_path}
    given = {name: value for name, value in {**RESNET, **given}.items() if value is not None}
    done = forked("train_imagenet.py", *options(given))
    assert done.returncode == 0, done.stderr


def test_a_failure_names_the_samples_whatever_is_raised_and_nothing_is_held_by_it(path):
    def fails(image):
        next(iter(()))

    gc.collect()
    gc.disable()
    try:
        loader = beton.Loader(path, 8, image=["center(32)", fails], workers=2, shuffle=False)
        with pytest.raises(RuntimeError, match=r"a stage failed \(StopIteration.*samples 0, 1, 2"):
            list(loader)
        held = weakref.ref(loader)
        del loader
        assert held() is None
    finally:
        gc.enable()
