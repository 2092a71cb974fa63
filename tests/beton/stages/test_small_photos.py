"""What small photos are trained with: parts that are cut out and not resized, translate, cutout; against NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from beton import kernels
from beton.errors import UserError
from beton.rng import sample_keys
from beton.stages.base import Mirror, Move, Normalize, Paint
from beton.stages.parse import parse
from tests.support.betons import RAW, write_beton
from tests.support.loaders import images_of, run_epoch
from tests.support.statistics import counts_p

SEED, EPOCH = 7, 3
PALE = (201, 77, 5)


def noise(count, height, width):
    return list(np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8))


def moved(image, down, right, colour):
    """The image padded with a colour, and a part of its size cut out."""
    height, width = image.shape[:2]
    most = max(height, width, abs(down), abs(right))
    large = np.empty((height + 2 * most, width + 2 * most, 3), np.uint8)
    large[:] = colour
    large[most : most + height, most : most + width] = image
    return large[most - down : most - down + height, most - right : most - right + width]


def by_numpy(images, stages, keys):
    """What the stages behind the crop make of images (uint8), one by one."""
    images = np.stack(images)
    for stage in stages:
        if isinstance(stage, Mirror):
            images = np.stack([i[:, ::-1] if m else i for i, m in zip(images, stage.mirrors(keys), strict=True)])
        elif isinstance(stage, Move):
            images = np.stack([moved(i, *m, stage.fill) for i, m in zip(images, stage.moves(keys), strict=True)])
        elif isinstance(stage, Paint):
            for image, (top, left) in zip(images, stage.corners(keys, *images.shape[1:3]), strict=True):
                image[top : top + stage.size, left : left + stage.size] = stage.colour
        elif isinstance(stage, Normalize):
            images = images * stage.scale_shift[:3] + stage.scale_shift[3:]
    return images


@pytest.mark.parametrize("mode", ["raw", "jpg"])
@pytest.mark.parametrize("size", [(32, 32), (15, 33), (1, 1), (64, 48)])
@pytest.mark.parametrize(
    "behind",
    [
        "normalize",
        "flip|normalize",
        f"flip|translate(4, {PALE})|cutout(1, {PALE})|normalize",
        f"translate(40, {PALE})",
        "translate(2)|flip|cutout(1)|normalize",
        f"flip|cutout(1, 9)|translate(3)|cutout(1, {PALE})",
        "flip|translate(2)|gray(0)|cutout(1)|normalize",
    ],
)
def test_images_are_numpys(tmp_path, mode, size, behind):
    photos, text = noise(40, *size), f"center({size}, 1)"
    path = write_beton(tmp_path / "a.beton", photos, mode)
    given = {"seed": SEED, "shuffle": False, "drop_last": False, "epoch": EPOCH}
    photos = images_of(run_epoch("beton", path, stages=text, **given)).permute(0, 2, 3, 1).numpy()
    made = images_of(run_epoch("beton", path, stages=f"{text}|{behind}", **given)).permute(0, 2, 3, 1)
    expected = by_numpy(list(photos), parse(f"{text}|{behind}")[1:], sample_keys(SEED, EPOCH, np.arange(40)))
    assert made.dtype == (torch.float32 if "normalize" in behind else torch.uint8)
    np.testing.assert_array_equal(made.numpy(), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cutout_paints_what_normalize_makes_of_its_colour(tmp_path, dtype):
    path = write_beton(tmp_path / "a.beton", noise(9, 16, 16))
    text = f"center(16, 1)|cutout(9, {PALE})|normalize"
    one = images_of(run_epoch("beton", path, stages=text, dtype=dtype, drop_last=False))
    other = images_of(run_epoch("beton", path, stages=text, drop_last=False))
    assert one.dtype == dtype
    assert torch.equal(one, other.to(dtype))


@settings(max_examples=200)
@given(st.data())
def test_a_part_that_is_not_resized_is_copied(data):
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    height, width = draw(1, 60), draw(1, 60)
    photo = np.random.default_rng(draw(0, 99)).integers(0, 256, (height, width, 3), np.uint8)
    high, wide = draw(1, height), draw(1, width)
    top, left = draw(0, height - high), draw(0, width - wide)
    rows, columns = draw(high, height - top), draw(wide, width - left)  # of the box, of which a window is shown
    mirror, kind = data.draw(st.booleans()), draw(0, 2)
    box, window = (top, left, rows, columns), (rows, columns, rows - high, columns - wide, kind)
    image = kernels.crop(photo.reshape(-1), RAW, (height, width), box, window, (high, wide), mirror)
    part = photo[top + rows - high :, left + columns - wide :][:high, :wide]
    np.testing.assert_array_equal(image, part[:, ::-1] if mirror else part)


@pytest.mark.parametrize("padding", [0, 1, 4])
def test_translate_moves_evenly_both_ways(padding):
    moves = parse(f"center(8)|translate({padding})")[1].moves(sample_keys(0, 0, np.arange(20_000)))
    for axis in moves.T:
        counts = np.bincount(axis + padding, minlength=2 * padding + 1)
        assert len(counts) == 2 * padding + 1
        assert padding == 0 or counts_p(counts, np.full(len(counts), 1e9)) > 0.001
    assert padding == 0 or abs(np.corrcoef(moves.T)[0, 1]) < 4 / np.sqrt(20_000)


def test_cutout_lies_within_the_image_anywhere():
    corners = parse("center(8)|cutout(3)")[1].corners(sample_keys(0, 0, np.arange(20_000)), 8, 5)
    for axis, places in zip(corners.T, (6, 3), strict=True):
        counts = np.bincount(axis, minlength=places)
        assert len(counts) == places
        assert counts_p(counts, np.full(places, 1e9)) > 0.001


def test_the_references_make_images_of_the_same_kind():
    torch.manual_seed(0)
    photo = Image.fromarray(noise(1, 20, 30)[0])
    cut = np.asarray(parse(f"center(8)|cutout(6, {PALE})")[1].reference()(photo))
    assert (cut == PALE).all(axis=2).sum() == 36
    assert (cut == np.asarray(photo)).all(axis=2).sum() == 20 * 30 - 36
    found = {parse("center(8)|translate(1)")[1].reference()(photo).tobytes() for _ in range(200)}
    assert found == {moved(np.asarray(photo), y, x, 0).tobytes() for y in (-1, 0, 1) for x in (-1, 0, 1)}


def test_a_square_larger_than_the_images_is_an_error(tmp_path):
    path = write_beton(tmp_path / "a.beton", noise(9, 16, 16))
    with pytest.raises(UserError, match="cutout.17. is larger than the images of 16 x 16 pixels; make it smaller"):
        run_epoch("beton", path, stages="center(16)|cutout(17)")
