"""The crop stages with Pillow's filters: the resize itself, each stage against its reference, what they draw."""

import numpy as np
import PIL
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import RandomCrop, RandomResizedCrop

from beton import kernels
from beton.rng import sample_keys
from beton.stages.filters import AREA, BICUBIC, BILINEAR, FILTERS
from beton.stages.parse import parse
from tests.support.betons import RAW, write_beton
from tests.support.loaders import images_of, run_epoch
from tests.support.photos import generated_photos
from tests.support.statistics import counts_p

PILLOW = {BILINEAR: Image.Resampling.BILINEAR, BICUBIC: Image.Resampling.BICUBIC}
SEED, EPOCH = 5, 2


def rows_first(height, width, rows, columns):
    """Whether Pillow 13 resizes the rows before the columns; Pillow 11.3 and 12.3 never do."""
    return height > rows and height - rows > 2 * (width - columns)


def as_pillow_13(photo, rows, columns, kind):
    """Pillow's resize, one direction after the other: so in this order whatever the version."""
    height, width = photo.shape[:2]
    between = (width, rows) if rows_first(height, width, rows, columns) else (columns, height)
    return np.asarray(Image.fromarray(photo).resize(between, PILLOW[kind]).resize((columns, rows), PILLOW[kind]))


def assert_within(difference, image, expected):
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).max() <= difference


def assert_within_1(image, expected):
    assert_within(1, image, expected)


def resized(photo, box, rows, columns, kind, window=None):
    """The window (top, left, height, width) of a box of a photo that was resized; by default all of it."""
    top, left, high, wide = window or (0, 0, rows, columns)
    return kernels.crop(photo, RAW, photo.shape[:2], box, (rows, columns, top, left, kind), (high, wide))


@pytest.fixture(scope="module")
def photos():
    """Generated photos of six sizes, and parts of them: of one pixel, of odd sides, long and thin."""
    whole = generated_photos(6)
    sides = [(1, 1), (1, 2), (2, 1), (1, 150), (150, 1), (4, 300), (300, 3), (61, 87), (87, 61), (33, 200), (96, 96)]
    return whole + [np.ascontiguousarray(whole[0][:h, :w]) for h, w in sides]


SIZES = [(224, 224), (1, 1), (600, 700), (37, 301), (301, 37), (3, 400), (400, 3)]


@pytest.mark.parametrize("kind", PILLOW)
def test_the_resize_is_pillows_on_photos(photos, kind):
    for photo in photos:
        for rows, columns in SIZES:
            image = resized(photo, (0, 0, *photo.shape[:2]), rows, columns, kind)
            assert_within_1(image, as_pillow_13(photo, rows, columns, kind))


sides = st.one_of(st.integers(1, 5), st.integers(1, 90))


@settings(max_examples=300)
@given(sides, sides, sides, sides, sides, sides, st.sampled_from(list(PILLOW)), st.integers(0, 2**32))
@example(1, 1, 1, 1, 90, 90, BICUBIC, 0)
@example(90, 1, 1, 1, 1, 90, BICUBIC, 0)
@example(1, 90, 90, 1, 1, 1, BILINEAR, 0)
def test_any_box_to_any_size_is_pillows_and_any_window_a_part_of_it(height, width, h, w, rows, columns, kind, seed):
    rng = np.random.default_rng(seed)
    photo = rng.choice(np.array([0, 255], np.uint8), (height, width, 3))  # the sharpest there is
    h, w = min(h, height), min(w, width)
    top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    whole = as_pillow_13(photo[top : top + h, left : left + w], rows, columns, kind)
    # Of black and white, sums may lie just between two bytes; one taken the other way between the passes
    # counts 1.1 times in the cubic
    most = 2 if kind == BICUBIC else 1
    assert_within(most, resized(photo, (top, left, h, w), rows, columns, kind), whole)

    before = rng.integers(0, 5, 2)
    padded = np.pad(whole, ((before[0], 4), (before[1], 4), (0, 0)), "reflect")
    y, x = rng.integers(0, padded.shape[0]), rng.integers(0, padded.shape[1])
    expected = padded[y : y + rng.integers(1, 50), x : x + rng.integers(1, 50)]
    window = (y - before[0], x - before[1], *expected.shape[:2])
    assert_within(most, resized(photo, (top, left, h, w), rows, columns, kind, window), expected)


@pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 13, reason="resizes columns first always")
@pytest.mark.parametrize("kind", PILLOW)
def test_the_order_of_rows_and_columns_is_this_pillows(kind):
    rng = np.random.default_rng(0)
    for height, width, rows, columns in rng.integers(1, 60, (150, 4)).tolist():
        photo = rng.choice(np.array([0, 255], np.uint8), (height, width, 3))
        expected = np.asarray(Image.fromarray(photo).resize((columns, rows), PILLOW[kind]))
        assert_within(2, resized(photo, (0, 0, height, width), rows, columns, kind), expected)


def loaded(stage, photos, tmp_path, mode="raw"):
    """What the loader makes of the photos: the stage, its boxes and windows, the images."""
    path = write_beton(tmp_path / f"{mode}.beton", photos, mode)
    given = {"stages": stage, "seed": SEED, "shuffle": False, "drop_last": False}
    images = images_of(run_epoch("beton", path, epoch=EPOCH, **given)).permute(0, 2, 3, 1).numpy()
    crop, keys = parse(stage)[0], sample_keys(SEED, EPOCH, np.arange(len(photos)))
    heights, widths = np.array([p.shape[:2] for p in photos]).T
    return crop, crop.boxes(heights, widths, keys), crop.windows(heights, widths, keys), images


def assert_images_are_the_references(stage, photos, tmp_path, monkeypatch, mode="raw", read_as=None, most=1):
    """Each image is what the stage's reference makes of the photo when it draws the same numbers, within `most`."""
    crop, boxes, windows, images = loaded(stage, photos, tmp_path, mode)
    compared = 0
    for photo, box, window, image in zip(read_as or photos, boxes.tolist(), windows.tolist(), images, strict=True):
        rows, columns, top, left, kind = window
        if int(PIL.__version__.split(".")[0]) < 13 and rows_first(*box[2:], rows, columns):
            continue
        padding = getattr(crop, "padding", 0)
        monkeypatch.setattr(RandomResizedCrop, "get_params", lambda *_, box=box: box)
        drawn = (top + padding, left + padding, crop.height, crop.width)
        monkeypatch.setattr(RandomCrop, "get_params", lambda *_, drawn=drawn: drawn)
        reference = crop.reference()
        if getattr(crop, "interpolation", None) == "random":
            reference = reference.transforms[kind]
        assert_within(most, image, np.asarray(reference(Image.fromarray(photo))))
        compared += 1
    assert compared > len(photos) / 2


STAGES = [
    "rrc(64, interpolation='bilinear')",
    "rrc(64, interpolation='bicubic')",
    "rrc(300, (0.01, 1), (0.1, 10), 'bicubic')",
    "rrc(33, interpolation='random')",
    "rrc(1, interpolation='random')",
    "center(64, interpolation='bilinear')",
    "center(64, interpolation='bicubic')",
    "center(65, 1, 'bicubic')",
    "center(31, 0.3, 'bicubic')",
    "center(1, interpolation='bilinear')",
    "src(64)",
    "src(96)",
    "src(65, 0, 'bilinear')",
    "src(3, padding=11)",
    "src(1, padding=2)",
    "src(64, fill=(200, 30, 90))",
    "src(7, 9, 'bilinear', fill=17)",
    "src((48, 64), fill=0)",
    "rrc((48, 64), interpolation='bilinear')",
    "rrc((64, 48), interpolation='random')",
    "rrc((1, 90), interpolation='bicubic')",
    "center((48, 64), interpolation='bilinear')",
    "center((64, 48), 1, 'bicubic')",
    "center((90, 31), 0.5, 'bicubic')",
    "src((48, 64))",
    "src((64, 48), 0, 'bilinear')",
    "src((3, 40), padding=11)",
]


@pytest.mark.parametrize("stage", STAGES)
def test_images_are_those_of_the_reference_with_the_same_draws(stage, photos, tmp_path, monkeypatch):
    assert_images_are_the_references(stage, photos, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    "stage",
    [
        "rrc(48, interpolation='bicubic')",
        "center(48, interpolation='bicubic')",
        "src(48)",
        "rrc((48, 64), interpolation='bicubic')",
        "center((64, 48), interpolation='bicubic')",
        "src((48, 64))",
        "src(48, 9, fill=(200, 30, 90))",
    ],
)
def test_stored_jpegs_are_resized_as_they_are_decoded(stage, photos, tmp_path, monkeypatch):
    squares = [np.ascontiguousarray(photo[:160, :160]) for photo in photos[:6]]
    decoded = list(loaded("center(160, 1)", squares, tmp_path, "jpg")[3])
    # Brightness and colour are rounded between the passes, and what RGB does not have is cut off after them
    assert_images_are_the_references(stage, squares, tmp_path, monkeypatch, "jpg", decoded, most=12)


def drawn(stage, height, width, count=10_000):
    keys = sample_keys(0, 0, np.arange(count))
    crop, heights, widths = parse(stage)[0], np.full(count, height), np.full(count, width)
    return crop.boxes(heights, widths, keys), crop.windows(heights, widths, keys)


# Photos that are resized to their own size
@pytest.mark.parametrize(
    ("height", "width", "size", "padding"),
    [
        (40, 20, (20, 20), 4),
        (20, 23, (20, 20), 4),
        (20, 20, (20, 20), 2),
        (30, 20, (20, 20), 0),
        (30, 20, (12, 20), 4),
        (12, 33, (12, 20), 1),
    ],
)
def test_src_draws_its_offsets_as_torchvision_does(height, width, size, padding):
    _, windows = drawn(f"src({size}, {padding})", height, width)
    photo = torch.empty(1).expand(3, height + 2 * padding, width + 2 * padding)
    torch.manual_seed(1)
    theirs = np.array([RandomCrop.get_params(photo, size)[:2] for _ in range(10_000)])
    ours = windows[:, 2:4] + padding
    for axis, places in enumerate((height + 2 * padding - size[0] + 1, width + 2 * padding - size[1] + 1)):
        counts = [np.bincount(offsets[:, axis], minlength=places) for offsets in (ours, theirs)]
        assert len(counts[0]) == len(counts[1]) == places
        if places > 1:
            assert counts_p(*counts) > 0.001
            assert counts_p(counts[0], np.full(places, 1e9)) > 0.001
    if padding:
        assert abs(np.corrcoef(ours.T)[0, 1]) < 4 / np.sqrt(10_000)


def test_random_interpolation_is_either_for_half_of_the_samples_whatever_their_box():
    boxes, windows = drawn("rrc(24, interpolation='random')", 300, 400)
    kinds = windows[:, 4]
    assert set(kinds) == {BILINEAR, BICUBIC}
    assert counts_p(np.bincount(kinds), [1e9, 1e9]) > 0.001
    assert np.abs(np.corrcoef(np.column_stack([kinds, boxes]).T)[0, 1:]).max() < 4 / np.sqrt(10_000)
    for name, kind in FILTERS.items():
        others = drawn(f"rrc(24, interpolation='{name}')", 300, 400)
        np.testing.assert_array_equal(others[0], boxes)
        assert (others[1][:, 4] == kind).all()


def test_the_random_reference_takes_either_as_torchs_seed_says(photos):
    reference = parse("rrc(24, (1, 1), (1, 1), 'random')")[0].reference()
    photo = Image.fromarray(photos[-1])
    expected = [np.asarray(photo.resize((24, 24), kind)) for kind in PILLOW.values()]
    found = []
    for seed in range(100):
        torch.manual_seed(seed)
        image = np.asarray(reference(photo))
        torch.manual_seed(seed)
        np.testing.assert_array_equal(image, np.asarray(reference(photo)))
        found.append([(image == other).all() for other in expected].index(True))
    assert 20 < sum(found) < 80


def test_area_is_the_default():
    for stage in ("rrc(24)", "rrc(24, interpolation='area')", "center(24)", "center(24, interpolation='area')"):
        assert (drawn(stage, 50, 60, 10)[1] == (24, 24, 0, 0, AREA)).all()
    for stage in ("rrc((24, 30))", "center((24, 30))"):
        assert (drawn(stage, 50, 60, 10)[1] == (24, 30, 0, 0, AREA)).all()


# Photos of another shape than the crop: for the stage at hand both boxes are all that is drawn
@pytest.mark.parametrize("size", [(48, 64), (64, 48), (10, 70)])
@pytest.mark.parametrize(("height", "width"), [(300, 400), (400, 90), (81, 80)])
def test_crops_that_are_not_square_draw_and_cover_as_torchvision_does(size, height, width):
    boxes, windows = drawn(f"rrc({size})", height, width)
    np.testing.assert_array_equal(boxes, drawn("rrc(8)", height, width)[0])  # torchvision's draws know no size
    assert (windows[:, :4] == (*size, 0, 0)).all()
    (top, left, high, wide), *_ = drawn(f"center({size}, 1)", height, width, 1)[0].tolist()
    assert high == height or wide == width
    assert abs(high * size[1] - wide * size[0]) < max(size)  # of the same shape, but for whole pixels
    assert (top, left) == ((height - high) // 2, (width - wide) // 2)
    (rows, columns, *_), *_ = drawn(f"src({size})", height, width, 1)[1].tolist()
    assert rows >= size[0] and columns >= size[1] and (rows == size[0] or columns == size[1])
    assert abs(rows * width - columns * height) < max(height, width)
