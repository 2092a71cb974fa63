"""beton.Loader, as a user of the library writes it down: its arguments, its batches, its epochs, its end."""

import threading

import pytest
import torch

import beton
from tests.support.scripts import run_script

STAGES = "center(24)"


def labels_of(batches) -> list[int]:
    return [int(label) for batch in batches for label in batch.label]


def test_a_batch_is_a_named_tuple_in_the_order_of_the_file(opened):
    for batch in opened():
        images, labels = batch
        assert batch._fields == ("image", "label")
        assert batch.image is images and batch.label is labels
        assert images.shape[1:] == (3, 24, 24) and images.dtype == torch.uint8
        assert images.is_contiguous(memory_format=torch.channels_last) and labels.dtype == torch.int64


def test_an_epoch_has_all_samples_the_last_batch_is_smaller(opened):
    """In the library nothing is left out unless `drop_last` asks for it."""
    loader = opened()
    batches = list(loader)
    assert [len(batch.label) for batch in batches] == [8] * 5 + [5] and len(loader) == 6
    assert sorted(labels_of(batches)) == list(range(45)) == labels_of(opened(shuffle=False))
    assert len(list(opened(drop_last=True))) == 5


@pytest.mark.parametrize("columns", [("label",), ("image",), ("label", "image"), ["image", "label"]])
def test_columns_are_those_asked_for_in_their_order(opened, columns):
    stages = {} if "image" in columns else {"image": None}
    batches = list(opened(columns=columns, shuffle=False, **stages))
    assert batches[0]._fields == tuple(columns)
    whole = list(opened(shuffle=False))
    for batch, complete in zip(batches, whole, strict=True):
        assert all(torch.equal(getattr(batch, name), getattr(complete, name)) for name in columns)


def test_an_image_field_without_stages_may_be_left_out(opened):
    assert next(iter(opened(image=None)))._fields == ("label",)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"columns": ("image", "weight")}, "all.beton has no field 'weight'; it has image, label; name one of these"),
        ({"mask": STAGES}, "all.beton has no field 'mask'; it has image, label"),
        ({"columns": ()}, "no field of .* is wanted; name one in `columns`"),
        (
            {"columns": ("image",), "image": None},
            "no stages are given for .* 'image'; give image=",
        ),
        ({"label": "flip"}, "the field 'label' holds numbers, which take no stages; leave out 'flip'"),
        ({"image": "flip"}, "begin with rrc"),
        ({"image": "center(24)|flop"}, "unknown stage 'flop'"),
        ({"batch_size": 0}, "`batch_size`=0 is not a whole number from 1 on"),
        ({"batch_size": 64, "drop_last": True}, "45 samples, too few for one batch of 64"),
        ({"workers": 0}, "`workers`=0 is not a whole number from 1 on"),
        ({"on_error": "ignore"}, "`on_error`='ignore' is none of raise, skip, substitute"),
        ({"path": "nowhere.beton"}, "there is no file nowhere.beton"),
    ],
)
def test_wrong_arguments_are_errors_that_say_what_to_do(opened, arguments, words):
    with pytest.raises(beton.UserError, match=words):
        opened(**arguments)


def test_stages_must_be_given_for_images(numbered):
    with pytest.raises(beton.UserError, match="no stages are given for .* 'image'; give image='rrc"):
        beton.Loader(numbered["beton"], 8)


@pytest.mark.parametrize("workers", [1, None, 1000])
def test_batches_do_not_depend_on_the_workers(opened, workers):
    given = {"image": "rrc(24)|flip|normalize", "seed": 3}
    for batch, same in zip(opened(workers=workers, **given), opened(workers=2, **given), strict=True):
        assert torch.equal(batch.image, same.image) and torch.equal(batch.label, same.label)


def test_each_iteration_is_the_next_epoch(opened):
    loader = opened()
    assert loader.epoch == 0
    found = [labels_of(loader) for _ in range(3)]
    assert loader.epoch == 3 and len(set(map(tuple, found))) == 3
    assert found == [labels_of(opened().batches(epoch)) for epoch in range(3)]


def test_the_epoch_can_be_set(opened):
    loader, other = opened(), opened()
    loader.epoch = 7
    assert labels_of(loader) == labels_of(other.batches(7))
    assert (loader.epoch, other.epoch) == (8, 0)
    assert labels_of(loader.batches(7, start=2)) == labels_of(other.batches(7))[16:]


def test_at_the_end_of_its_context_a_loader_is_closed(opened):
    before = set(threading.enumerate())
    with opened() as loader:
        next(epoch := iter(loader))
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) <= before
    assert list(epoch) == []
    with pytest.raises(RuntimeError, match="is closed"):
        list(loader)


def test_classes_and_descriptions_are_there(opened, numbered):
    loader = opened()
    assert loader.classes == [f"c{i:03d}" for i in range(45)] and loader.num_samples == 45
    assert "threads" in loader.description
    with beton.open(numbered["beton"]) as file:
        assert file.classes == loader.classes


WITHIN_AN_EPOCH = """
import sys, beton
loader = beton.Loader(sys.argv[1], 4, image="rrc(24)|flip|normalize", workers=2)
batches = iter(loader)
images, labels = next(batches)
other = loader.batches(3)
next(other)
{end}
"""


@pytest.mark.parametrize(("end", "status"), [("print('done')", 0), ("sys.exit(3)", 3), ("del loader", 0)])
def test_a_script_that_ends_within_an_epoch_ends_in_silence(numbered, end, status):
    done = run_script("-c", WITHIN_AN_EPOCH.format(end=end), numbered["beton"], timeout=100)
    assert (done.returncode, done.stderr) == (status, "")
