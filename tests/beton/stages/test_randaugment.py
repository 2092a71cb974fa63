"""RandAugment: each operation against timm's (Pillow's), the draws against timm's, and both loaders."""

from itertools import chain

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment, rand_augment_transform

from beton.rng import sample_keys
from beton.stages import randaugment
from beton.stages.parse import parse
from beton.stages.randaugment import LEVEL, METHOD, OPERATION, OPERATIONS, SIGN
from tests.support.photos import generated_photos
from tests.support.statistics import counts_p, two_sample_p

RECIPE = "rand-m9-mstd0.5-inc1"
FILL = (124, 116, 104)
FILTERS = [Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC]
GEOMETRIC = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")


@pytest.fixture(scope="module")
def photos():
    """Generated photos of several sizes (height, width), tiny and odd ones too, and one of a single colour."""
    sizes = [(224, 224), (97, 131), (160, 75), (21, 20), (3, 5), (5, 2), (1, 1)]
    read = generated_photos(len(sizes), seed=3)
    small = [cv2.resize(p, size[::-1], interpolation=cv2.INTER_AREA) for p, size in zip(read, sizes, strict=True)]
    dim = (small[1] // 3 + 40).astype(np.uint8)  # leaves autocontrast something to do
    return [*small, dim, np.full((9, 7, 3), 77, np.uint8)]


def stage(text=f"'{RECIPE}'"):
    return parse(f"rrc(8)|randaugment({text})")[1]


def ours(name, photo, level, sign, method, increasing):
    """The photo after one operation."""
    plan = np.zeros((1, 1, 4))
    plan[0, 0, [OPERATION, LEVEL, SIGN, METHOD]] = OPERATIONS.index(name), level, sign, method
    image = photo[None].copy()
    randaugment.follow(image, plan, increasing, FILL)
    return image[0]


def timms_name(name, increasing):
    return f"{name}Increasing" if increasing and f"{name}Increasing" in auto_augment.NAME_TO_OP else name


def timms(name, photo, level, sign, method, increasing, monkeypatch):
    """The same by timm."""
    name = timms_name(name, increasing)
    monkeypatch.setattr(auto_augment, "_randomly_negate", lambda value: sign * value)
    level_function = auto_augment.LEVEL_TO_ARG[name]
    arguments = level_function(level, {}) if level_function else ()
    if name.startswith("Posterize") and arguments[0] < 1:
        return np.zeros_like(photo)  # of no bits; an error since Pillow 13
    options = {"fillcolor": FILL, "resample": FILTERS[method]}
    return np.asarray(auto_augment.NAME_TO_OP[name](Image.fromarray(photo), *arguments, **options))


def test_the_operations_are_timms():
    assert [timms_name(name, False) for name in OPERATIONS] == auto_augment._RAND_TRANSFORMS
    assert [timms_name(name, True) for name in OPERATIONS] == auto_augment._RAND_INCREASING_TRANSFORMS


@pytest.mark.parametrize(("name", "method"), [(n, m) for n in OPERATIONS for m in range(3 if n in GEOMETRIC else 1)])
def test_each_operation_equals_timms(name, method, photos, monkeypatch):
    for increasing in (False, True):
        for level in (0, 0.7, 3, 5.55, 9, 10, 17):
            for sign in (-1, 1):
                for photo in photos:
                    given = (name, photo, level, sign, method, increasing)
                    found, expected = ours(*given), timms(*given, monkeypatch)
                    worst = np.abs(found.astype(int) - expected).max()
                    assert worst <= 1, (worst, level, sign, increasing, photo.shape)


@pytest.mark.parametrize("increasing", [False, True])
@pytest.mark.parametrize("name", OPERATIONS)
def test_arguments_are_timms(name, increasing, monkeypatch):
    function = auto_augment.LEVEL_TO_ARG[timms_name(name, increasing)]
    for sign in (-1, 1):
        monkeypatch.setattr(auto_augment, "_randomly_negate", lambda value, sign=sign: sign * value)
        for level in np.linspace(0, 30, 601).tolist():
            (expected,) = function(level, {}) if function else (0,)
            found = randaugment.argument(OPERATIONS.index(name), level, sign, increasing)
            assert found == pytest.approx(expected, abs=1e-12)


def counts(values, size):
    return np.bincount(np.asarray(values, int), minlength=size)


def same_p(ours, theirs) -> float:
    """p-value of the chi-square test that two samples of small integers have one distribution."""
    size = 1 + int(max(np.max(ours), np.max(theirs)))
    table = np.array([counts(ours, size), counts(theirs, size)])
    table = table[:, table.sum(0) > 0]
    return counts_p(*table) if table.shape[1] > 1 else 1.0  # nothing is drawn


def timms_draws(config, count, monkeypatch):
    """What timm draws for `count` images: operations done in each, magnitudes, signs and interpolations."""
    transform, negate = rand_augment_transform(config, {}), auto_augment._randomly_negate
    done, levels, signs, methods = [[] for _ in range(count)], [], [], []
    monkeypatch.setattr(auto_augment, "_randomly_negate", lambda v: signs.append(negate(1)) or v)
    for number, op in enumerate(transform.ops):
        level_function = op.level_fn or (lambda level, _: ())
        op.level_fn = lambda level, options, f=level_function: levels.append(level) or f(level, options)

        def record(image, *_, number=number, **options):
            done[image].append(number)
            methods.append(FILTERS.index(auto_augment._interpolation(options)))
            return image

        op.aug_fn = record
    auto_augment.random.seed(1)
    np.random.seed(1)
    for image in range(count):
        transform(image)
    return done, levels, signs, methods


@pytest.mark.parametrize("config", [RECIPE, "rand-m15-n3-p0.3-mstd4-mmax20", "rand-m8-mstd101-p1-n1", "rand"])
def test_draws_have_timms_distributions(config, monkeypatch):
    done, levels, signs, methods = timms_draws(config, 10_000, monkeypatch)
    plan = stage(f"'{config}'").plan(sample_keys(4, 0, np.arange(10_000)))
    applied = plan[plan[:, :, OPERATION] >= 0]

    numbers = (plan[:, :, OPERATION] >= 0).sum(1)
    assert same_p(numbers, [len(operations) for operations in done]) > 0.001
    assert same_p(applied[:, OPERATION], list(chain(*done))) > 0.001
    assert same_p(applied[:, SIGN] > 0, np.array(signs) > 0) > 0.001
    assert same_p(applied[:, METHOD], methods) > 0.001
    assert two_sample_p(applied[:, LEVEL], levels) > 0.001
    assert applied[:, LEVEL].max() == pytest.approx(max(levels), abs=0.1)


def test_draws_of_an_image_are_independent():
    operations = stage("'rand-m9-mstd1-p1'").plan(sample_keys(0, 0, np.arange(20_000)))
    pairs = counts(operations[:, 0, OPERATION] * 15 + operations[:, 1, OPERATION], 225)
    assert counts_p(pairs, np.full(225, 1e9)) > 0.001  # each as likely: with replacement
    columns = operations[:, :, [OPERATION, LEVEL, SIGN, METHOD]].reshape(len(operations), 8)
    others = np.corrcoef(columns.T)[np.triu_indices(8, 1)]
    assert np.abs(others).max() < 4 / np.sqrt(len(operations))


def test_the_same_keys_give_the_same_pixels(photos):
    images, keys = np.stack([photos[0]] * 24), sample_keys(0, 0, np.arange(24))
    whole, parts, other = images.copy(), images.copy(), images.copy()
    stage().apply(whole, keys)
    for part in (slice(20, 24), slice(0, 7), slice(7, 20)):
        stage().apply(parts[part], keys[part])
    np.testing.assert_array_equal(whole, parts)
    assert len(np.unique(whole.reshape(24, -1), axis=0)) > 10
    stage().apply(other, sample_keys(1, 0, np.arange(24)))
    assert (other != whole).any()


def test_interpolation_and_fill_are_parameters(photos):
    images, keys = np.stack([photos[0]] * 64), sample_keys(0, 0, np.arange(64))
    results = []
    for method in ("nearest", "bilinear", "bicubic"):
        chosen = stage(f"'{RECIPE}', interpolation='{method}', fill=(1, 2, 3)")
        assert set(chosen.plan(keys)[:, :, METHOD].ravel()) == {["nearest", "bilinear", "bicubic"].index(method)}
        results.append(images.copy())
        chosen.apply(results[-1], keys)
        transform = chosen.reference().transform
        assert transform.ops[3].kwargs == {"fillcolor": (1, 2, 3), "resample": Image.Resampling[method.upper()]}
    assert (results[0] != results[1]).any() and (results[1] != results[2]).any()
    assert stage().reference().transform.ops[3].kwargs["resample"] == tuple(FILTERS[1:])


def test_the_reference_runs_at_the_largest_magnitude_and_draws_from_torchs_generator(photos):
    reference, photo = stage("'rand-m10-n20-p1-inc1'").reference(), Image.fromarray(photos[1])
    torch.manual_seed(5)
    first = [np.asarray(reference(photo)) for _ in range(4)]  # posterizes to no bits among others
    torch.manual_seed(5)
    np.testing.assert_array_equal(first, [np.asarray(reference(photo)) for _ in range(4)])
    posterize = reference.transform.ops[OPERATIONS.index("Posterize")]
    assert np.asarray(posterize(photo)).max() == 0


def test_parts_are_read_as_timm_reads_them():
    for config in ("rand", RECIPE, "rand-m15-n3-p0.3-mstd4-mmax20-inc0", "rand-inc1-n1-mstd1000"):
        parts, theirs = stage(f"'{config}'").parts, rand_augment_transform(config, {})
        op = theirs.ops[4]
        assert (parts["n"], parts["m"], parts["p"]) == (theirs.num_layers, op.magnitude, op.prob)
        assert min(parts["mstd"], 101) == min(op.magnitude_std, 101)
        assert parts["mmax"] == (op.magnitude_max or 10)
        assert bool(parts["inc"]) == (op.name == "PosterizeIncreasing")
