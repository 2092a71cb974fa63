"""Views: an image is decoded once and cropped several times, each view by a pipeline of its own."""

import pickle

import numpy as np
import pytest
import torch

import beton
from beton.loading.to_device import tensors_of
from beton.rng import further_keys, sample_keys
from tests.support.betons import write_beton
from tests.support.cuda import pretend
from tests.support.jpegs import encode
from tests.support.photos import draw_photos

VIEWS = {
    "global": ("rrc(48, scale=(0.4, 1))|flip|jitter|normalize", 2),
    "local": ("rrc((24, 40), scale=(0.05, 0.4))|translate(3)|flip|normalize", 3),
    "whole": ("src(32, fill=7)", 1),
}
COUNTS = {name: count for name, (_, count) in VIEWS.items()}


@pytest.fixture(scope="module", params=["raw", "jpg", "blocks"])
def path(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("views")
    return write_beton(folder / "photos.beton", draw_photos(30, 40, 120), request.param)


def loaded(path, **given):
    with beton.Loader(path, 8, **({"workers": 2, "shuffle": False} | given)) as loader:
        return list(loader)


def test_each_view_is_what_its_stages_alone_would_give_for_its_key(path, monkeypatch):
    batches = loaded(path, views=VIEWS, seed=3)
    number = 0
    for name, (stages, count) in VIEWS.items():
        for view in range(count):
            images = torch.cat([getattr(batch, batch._fields[list(VIEWS).index(name)])[view] for batch in batches])

            def keys_of_view(seed, epoch, samples, number=number):
                return further_keys(sample_keys(seed, epoch, samples), 1 << 21, number)

            monkeypatch.setattr("beton.loading.task.sample_keys", keys_of_view)
            alone = torch.cat([images for images, _ in loaded(path, image=stages, seed=3)])
            monkeypatch.undo()
            assert images.dtype == alone.dtype and images.shape == alone.shape
            assert torch.equal(images, alone), (name, view)
            number += 1


def test_a_column_is_the_tuple_of_its_views_in_the_place_of_the_image(path):
    batch = loaded(path, views=VIEWS)[0]
    assert batch._fields == ("global_", "local", "whole", "label")
    assert {name: len(views) for name, views in zip(VIEWS, batch[:3], strict=True)} == COUNTS
    for image in [*batch.global_, *batch.local, *batch.whole]:
        assert image.is_contiguous(memory_format=torch.channels_last) and len(image) == 8
    assert not torch.equal(batch.global_[0], batch.global_[1])
    both = loaded(path, views=VIEWS, image="center(24)", as_dict=True, with_indices=True)[0]
    assert list(both) == ["image", "global", "local", "whole", "label", "indices"]
    assert list(loaded(path, views=VIEWS, columns=["label"], as_dict=True)[0]) == ["global", "local", "whole", "label"]


def test_views_depend_on_seed_epoch_sample_and_number_alone(path):
    def views(**given):
        return [view for batch in loaded(path, views=VIEWS, **given) for view in [*batch.global_, *batch.local]]

    first = views(workers=1)
    assert all(map(torch.equal, first, views(workers=2)))
    assert not any(map(torch.equal, first, views(seed=1)))
    more = loaded(path, views={**VIEWS, "more": ("center(16)", 1)})
    assert all(map(torch.equal, first, [view for batch in more for view in [*batch.global_, *batch.local]]))
    with beton.Loader(path, 8, views=VIEWS, workers=2) as loader, pickle.loads(pickle.dumps(loader)) as other:
        for one, same in zip(loader, other, strict=True):
            assert all(map(torch.equal, one.local, same.local))


def test_progressive_jpegs_have_views_and_damaged_ones_are_left_out(tmp_path):
    photos = draw_photos(12, 60, 90)
    files = [encode(photo, progressive=True) for photo in photos[:6]] + [encode(photo) for photo in photos[6:]]
    dataset = list(zip(files, range(12), strict=True))
    beton.write(dataset, tmp_path / "a.beton", write_mode="jpg", passthrough=True, workers=1)
    both = {"two": ("center(32, 1)", 2)}
    for batch in loaded(tmp_path / "a.beton", views=both, image="center(32, 1)"):
        for view in batch.two:
            assert torch.equal(view, batch.image)
    with beton.open(tmp_path / "a.beton") as file:
        start = int(file.columns["image"].addresses[8])
    np.memmap(tmp_path / "a.beton", np.uint8, "r+", start, 2)[:] = 0
    with pytest.raises(beton.DamagedSample, match="sample 8 "):
        loaded(tmp_path / "a.beton", views=both)
    batches = loaded(tmp_path / "a.beton", views=both, on_error="skip")
    labels = torch.cat([batch.label for batch in batches]).tolist()
    assert labels == [i for i in range(12) if i != 8] and sum(len(batch.two[1]) for batch in batches) == 11


@pytest.mark.parametrize(
    ("views", "words"),
    [
        ({"a": "rrc(24)"}, "the view 'a' is 'rrc.*not .stages, how many.; give, e.g., views="),
        ({"a": ("rrc(24)", 0)}, "not .stages, how many."),
        ({"a": ("flip", 1)}, "begin with rrc"),
        ({"a": ("rrc(24)", 65)}, "`views` are 65 images of each sample; give at most 64"),
        ({"label": ("rrc(24)", 1)}, "'label' is a view and a field too"),
    ],
)
def test_wrong_views_are_errors_that_say_what_to_do(numbered, views, words):
    with pytest.raises(beton.UserError, match=words):
        beton.Loader(numbered["beton"], 8, views=views)


def test_on_the_way_to_a_gpu_all_columns_are_the_same(path, monkeypatch):
    """With streams that only take notes: normalize is done behind the copy, and erasing but for views."""
    given = {"views": {**VIEWS, "erased": ("rrc(24)|normalize|erase(0.9)", 2)}, "image": "rrc(24)|normalize|erase(0.9)"}
    given |= {"with_indices": True, "with_geometry": True, "seed": 1, "as_dict": True}
    expected = loaded(path, **given)
    pretend(monkeypatch)
    for batch, same in zip(loaded(path, **given), expected, strict=True):
        assert list(batch) == list(same)
        for name in batch:
            assert type(batch[name]) is type(same[name]), name
            for one, other in zip(tensors_of(batch[name]), tensors_of(same[name]), strict=True):
                assert one.dtype == other.dtype
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
