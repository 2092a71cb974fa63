"""The stage erase: where, how often and with what it fills, against timm's RandomErasing; in both loaders."""

import random

import numpy as np
import pytest
import torch

from beton.rng import sample_keys
from beton.stages.base import Float, kind_of
from beton.stages.parse import parse
from beton.stages.plan import plan
from tests.support.cuda import pretend
from tests.support.loaders import run_epoch, task
from tests.support.statistics import counts_p, two_sample_p

DRAWS = 10_000
KEYS = sample_keys(0, 0, np.arange(DRAWS))
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def erase(arguments=""):
    return parse(f"rrc(8)|normalize|erase({arguments})")[-1]


def erased(stage, keys, height, width, dtype=torch.float32) -> torch.Tensor:
    """Images of sevens (n x H x W x 3) after the stage."""
    numbers = torch.full((len(keys), height, width, 3), 7, dtype=dtype)
    stage.apply((numbers if dtype == torch.float32 else numbers.view(torch.uint16)).numpy(), keys, dtype)
    return numbers


def test_erase_follows_normalize():
    stages = parse("rrc(8)|flip|normalize|erase|erase(0.1, 'const')")
    assert [kind_of(s) for s in stages[3:]] == [Float] * 2 and stages[3].stage_index == 3
    assert (stages[3].p, stages[4].p) == (0.25, 0.1)


def timm_boxes(arguments, height, width):
    """The rectangles of timm's own (top, left, height, width) in `DRAWS` images; of no height where it erases none."""
    random.seed(1)
    reference, boxes = erase(arguments).reference(), np.zeros((DRAWS, 4), int)
    for box in boxes:
        gone = (reference(torch.ones(1, height, width))[0] == 0).numpy()
        rows, columns = np.flatnonzero(gone.any(1)), np.flatnonzero(gone.any(0))
        if len(rows):
            box[:] = rows[0], columns[0], len(rows), len(columns)
    return boxes


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ("1, 'const'", (48, 48)),
        ("0.25, 'const'", (33, 60)),
        ("1, 'const', scale=(0.3, 0.9), ratio=(0.2, 2)", (31, 20)),
    ],
)
def test_rectangles_are_drawn_as_timms(arguments, size):
    ours, theirs = erase(arguments).boxes(KEYS, *size), timm_boxes(arguments, *size)
    there = [ours[:, 2] > 0, theirs[:, 2] > 0]
    counts = [[found.sum(), DRAWS - found.sum()] for found in there]
    assert counts[0] == counts[1] or counts_p(*counts) > 0.001
    measures = [measure(boxes[found], *size) for boxes, found in zip((ours, theirs), there, strict=True)]
    for name, a, b in zip(("area", "ratio", "top", "left"), *measures, strict=True):
        assert two_sample_p(a, b) > 0.001, name


def measure(boxes, height, width):
    top, left, h, w = boxes.T
    return h * w, h / w, top / np.maximum(height - h, 1), left / np.maximum(width - w, 1)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (5, 30), (24, 24)])
def test_rectangles_are_inside_the_image(size):
    top, left, h, w = erase("1, scale=(0.01, 1), ratio=(0.05, 20)").boxes(KEYS, *size).T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + h <= size[0]).all() and (left + w <= size[1]).all()


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_exactly_the_rectangle_is_filled(mode, dtype):
    stage, keys = erase(f"0.7, '{mode}'"), KEYS[:100]
    images = erased(stage, keys, 20, 30, dtype).float()
    single = erased(stage, keys, 20, 30)
    # The same noise in all types; values near 4 have a coarser grid
    torch.testing.assert_close(images, single, rtol=torch.finfo(dtype).eps, atol=1e-6)
    for image, (top, left, h, w) in zip(images, stage.boxes(keys, 20, 30), strict=True):
        inside = image[top : top + h, left : left + w]
        assert (image == 7).sum() == image.numel() - inside.numel()
        if mode == "const":
            assert (inside == 0).all()
        if mode == "rand" and h:
            assert (inside == inside[0, 0]).all() and len(inside[0, 0].unique()) == 3


def noise(images):
    return images[images != 7].numpy()


def test_noise_of_each_pixel_is_normal_and_uncorrelated():
    reference = torch.randn(DRAWS, generator=torch.Generator().manual_seed(0)).numpy()
    images = erased(erase("1, scale=(0.9, 0.9), ratio=(1, 1)"), KEYS[:200], 12, 12)
    values = images[images != 7].reshape(200, -1).numpy()
    assert two_sample_p(values[:, :50].ravel(), reference) > 0.001
    first, other = values[:-1].ravel(), values[1:].ravel()
    pairs = [(first, other), (values[:, :-1].ravel(), values[:, 1:].ravel()), (values[:, :-3], values[:, 3:])]
    for a, b in pairs:
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 4 / np.sqrt(a.size)


def test_colours_are_normal_and_uncorrelated():
    images = erased(erase("1, 'rand', scale=(0.5, 0.5), ratio=(1, 1)"), KEYS, 4, 4)
    colours = images[images != 7].reshape(DRAWS, -1, 3)[:, 0].numpy()
    for c in range(3):
        reference = torch.randn(DRAWS, generator=torch.Generator().manual_seed(c)).numpy()
        assert two_sample_p(colours[:, c], reference) > 0.001
    assert np.abs(np.corrcoef(colours.T)[np.triu_indices(3, 1)]).max() < 4 / np.sqrt(DRAWS)


def test_two_erasures_differ():
    stages = parse("rrc(8)|normalize|erase(1)|erase(1)")[2:]
    boxes = [stage.boxes(KEYS, 32, 32) for stage in stages]
    areas = [b[:, 2] * b[:, 3] for b in boxes]
    assert abs(np.corrcoef(areas)[0, 1]) < 4 / np.sqrt(DRAWS)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_loader_erases_what_the_keys_say(numbered, dtype):
    stages = "center(24)|normalize|erase(0.5, 'const')"
    plain = run_epoch("beton", numbered["beton"], stages="center(24)|normalize", dtype=dtype)
    given = task(numbered["beton"], stages, dtype=dtype)
    _, keys = given.order(45, 0)
    boxes = parse(stages)[-1].boxes(keys, 24, 24)
    found = 0
    erased = run_epoch("beton", numbered["beton"], stages=stages, dtype=dtype)
    for (before, labels), (after, labels_after) in zip(plain, erased, strict=True):
        assert torch.equal(labels, labels_after) and after.dtype == dtype
        for old, new in zip(before, after, strict=True):
            top, left, h, w = boxes[found]
            old[:, top : top + h, left : left + w] = 0
            assert torch.equal(old, new)
            found += 1
    assert (boxes[:, 2] > 0).sum() > 5


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_device_erases_the_same_numbers(numbered, monkeypatch, mode, dtype):
    """Two erasures, on tensors as they are on a GPU and in the threads."""
    # vflip, as without it the kernels would resize to floats. The arithmetic of normalize differs in the last bit
    stages = f"center((24, 20))|vflip|normalize|erase(0.6, '{mode}')|erase(0.3, '{mode}')"
    expected = run_epoch("beton", numbered["beton"], stages=stages, dtype=dtype)
    pretend(monkeypatch)
    found = run_epoch("beton", numbered["beton"], stages=stages, dtype=dtype)
    for (before, labels), (after, labels_after) in zip(expected, found, strict=True):
        assert torch.equal(labels, labels_after) and after.dtype == dtype
        torch.testing.assert_close(after, before, rtol=1e-6, atol=1e-6)


def test_erasing_on_the_device_waits_for_nothing():
    stage, images = erase("1"), torch.zeros(4, 3, 20, 30)
    drawn = torch.from_numpy(stage.draw(KEYS[:4], 20, 30))
    stage.on_device(images, drawn)
    meta = images.to("meta")
    stage._on_device[meta.device, meta.dtype] = torch.empty(1 << 16, device="meta")
    stage.on_device(meta, drawn)  # to read a number of the device's would fail


def test_for_a_gpu_the_threads_normalize_only_for_a_stage_that_has_no_other_way(monkeypatch):
    for text, there in (("rrc(24)|normalize", True), ("rrc(24)|normalize|erase(0.5)", True), ("rrc(24)|flip", None)):
        stages = plan(parse(text), torch.float32, gpu=True)
        assert (stages.on_device is not None) == bool(there)
        assert stages.normalize is None and stages.buffer_dtype == np.uint8
    monkeypatch.delattr(type(erase()), "on_device")
    stages = plan(parse("rrc(24)|normalize|erase(0.5)"), torch.float32, gpu=True)
    assert stages.on_device is None and stages.normalize is not None
