"""Stages: their text, and the first of them against their references."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torchvision.transforms import RandomResizedCrop

from beton.rng import sample_keys
from beton.stages.base import Crop, Normalize, kind_of
from beton.stages.normalize import NormalizeStage
from beton.stages.parse import parse
from tests.support.betons import write_beton
from tests.support.loaders import images_of, run_epoch
from tests.support.photos import draw_photos
from tests.support.statistics import resized_by_area, two_sample_p


def test_valid_text_gives_the_stages_in_their_places():
    stages = parse(" rrc( 176 , scale=(0.25, 1)) |\n flip(0.25)|flip() | normalize(std=[1, 1, 1]) ")
    assert [type(s).__name__ for s in stages] == ["Rrc", "Flip", "Flip", "NormalizeStage"]
    assert [s.stage_index for s in stages] == [0, 1, 2, 3]
    assert [kind_of(stages[0]), kind_of(stages[-1])] == [Crop, Normalize]
    assert (stages[0].height, stages[0].width, stages[0].scale, stages[1].p, stages[2].p) == (
        176,
        176,
        (0.25, 1.0),
        0.25,
        0.5,
    )
    assert stages[3].std == (1, 1, 1)
    assert parse("center(96, 1)")[0].ratio == 1


def boxes(text, height, width, count, seed=0):
    """Rectangles of `count` draws for photos of one size."""
    keys = sample_keys(seed, 0, np.arange(count))
    return parse(text)[0].boxes(np.full(count, height), np.full(count, width), keys)


@pytest.mark.parametrize("size", [(375, 500), (400, 90), (50, 333)])
def test_rrc_draws_as_torchvision_does(size):
    height, width = size
    photo = torch.empty(1).expand(3, height, width)
    torch.manual_seed(1)
    theirs = [RandomResizedCrop.get_params(photo, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(10_000)]
    for name, ours, reference in zip(
        ("area", "log ratio", "top", "left"),
        measures(boxes("rrc(8)", height, width, 10_000), height, width),
        measures(np.array(theirs), height, width),
        strict=True,
    ):
        assert two_sample_p(ours, reference) > 0.001, name


def measures(rectangles, height, width):
    top, left, h, w = rectangles.T
    return h * w / (height * width), np.log(w / h), top / np.maximum(height - h, 1), left / np.maximum(width - w, 1)


sides = st.one_of(st.integers(1, 5), st.integers(1, 65535))


@settings(max_examples=300)
@given(
    sides,
    sides,
    st.integers(0, 2**63 - 1),
    st.tuples(st.floats(1e-4, 1), st.floats(1e-4, 1)).map(sorted),
    st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3)).map(sorted),
    st.floats(0.01, 1),
)
@example(1, 1, 0, [1e-4, 1e-4], [1e-3, 1e-3], 0.01)
@example(1, 65535, 0, [1, 1], [1e3, 1e3], 1)
@example(65535, 1, 0, [1, 1], [1e-3, 1e-3], 1)
def test_boxes_are_inside_the_photo(height, width, seed, scale, ratio, part):
    for text in (f"rrc(8, {tuple(scale)}, {tuple(ratio)})", f"center(8, {part})"):
        top, left, h, w = boxes(text, height, width, 20, seed).T
        assert (h >= 1).all() and (w >= 1).all() and (top >= 0).all() and (left >= 0).all()
        assert (top + h <= height).all() and (left + w <= width).all()


@pytest.mark.parametrize(
    ("size", "ratio", "box"),
    [((256, 256), 0.875, (16, 16, 224, 224)), ((375, 500), 0.875, (23, 86, 328, 328)), ((7, 4), 1, (1, 0, 4, 4))],
)
def test_center_cuts_the_middle_square(size, ratio, box):
    assert tuple(boxes(f"center(8, {ratio})", *size, 1)[0]) == box


@pytest.mark.parametrize(
    "stage",
    ["rrc(24)", "rrc(64, ratio=(0.2, 5))", "rrc((48, 64))", "center(24, 0.8)", "center(96)", "center((33, 20), 0.9)"],
)
def test_crops_are_the_mean_over_the_area_of_each_pixel(stage, tmp_path):
    photos = [*draw_photos(30, 1, 120, seed=3), np.full((1, 1, 3), 77, np.uint8), *draw_photos(1, 24, 24)]
    keys = sample_keys(5, 2, np.arange(len(photos)))
    sizes = np.array([p.shape[:2] for p in photos])
    rectangles = parse(stage)[0].boxes(sizes[:, 0], sizes[:, 1], keys)
    path = write_beton(tmp_path / "raw.beton", photos)
    given = {"stages": stage, "seed": 5, "shuffle": False, "drop_last": False}
    images = images_of(run_epoch("beton", path, epoch=2, **given)).permute(0, 2, 3, 1).numpy()
    for photo, box, image in zip(photos, rectangles, images, strict=True):
        # Rounded twice: between rows and columns, and at the end
        assert np.abs(image - resized_by_area(photo, box, image.shape)).max() <= 1.01


@pytest.mark.parametrize("p", [0, 0.25, 0.5, 1])
def test_flip_mirrors_exactly_and_with_its_probability(p):
    images = np.random.default_rng(0).integers(0, 256, (10_000, 1, 3, 3), np.uint8)
    flipped = images.copy()
    parse(f"rrc(8)|flip({p})")[1].apply(flipped, sample_keys(0, 0, np.arange(len(images))))
    mirrored = images[:, :, ::-1]
    changed = (flipped == mirrored).all((1, 2, 3)) & (images != mirrored).any((1, 2, 3))
    np.testing.assert_array_equal(flipped[~changed], images[~changed])
    different = (images != mirrored).any((1, 2, 3)).sum()
    assert abs(changed.sum() / different - p) <= 4 * np.sqrt(p * (1 - p) / different)


@pytest.mark.parametrize("width", [1, 2, 7, 8])
def test_flip_of_any_width_is_numpys(width):
    images = np.random.default_rng(0).integers(0, 256, (5, 4, width, 3), np.uint8)
    flipped = images.copy()
    parse("rrc(8)|flip(1)")[1].apply(flipped, sample_keys(0, 0, np.arange(5)))
    np.testing.assert_array_equal(flipped, images[:, :, ::-1])


EVERY_VALUE = np.arange(256, dtype=np.uint8)[None, None, :, None].repeat(3, axis=3)
CONSTANTS = [{}, {"mean": (0.1, 0.2, 0.3), "std": (0.7, 0.8, 0.9)}, {"mean": (0, 0, 0), "std": (1, 1, 1)}]


def normalized(stage, dtype):
    target = np.empty(EVERY_VALUE.shape, np.float32 if dtype == torch.float32 else np.uint16)
    stage.apply(EVERY_VALUE, target, dtype)
    return torch.from_numpy(target).view(dtype).permute(0, 3, 1, 2)


@pytest.mark.parametrize("constants", CONSTANTS)
def test_normalize_equals_torchvisions_for_every_pixel_value(constants):
    stage = NormalizeStage(**constants)
    reference = stage.reference()(EVERY_VALUE[0])[None]
    ours = normalized(stage, torch.float32)
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-6)
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(normalized(stage, dtype), ours.to(dtype))
        assert torch.equal(normalized(stage, dtype), reference.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("constants", CONSTANTS)
def test_normalize_on_the_device_equals_that_of_the_threads(constants, dtype):
    stage = NormalizeStage(**constants)
    there = stage.on_device(torch.from_numpy(EVERY_VALUE).permute(0, 3, 1, 2), dtype)
    assert there.dtype == dtype
    ulp = torch.finfo(dtype).eps
    torch.testing.assert_close(there, normalized(stage, dtype), rtol=ulp, atol=1e-6)
