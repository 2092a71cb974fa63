"""Stages of colour, blur and mirroring: each against PIL or torchvision, and the distribution of what it draws."""

from itertools import permutations

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import ColorJitter
from torchvision.transforms import functional as F

from beton.rng import sample_keys
from beton.stages.jitter import ORDERS
from beton.stages.parse import parse
from beton.stages.three_augment import BLUR, GRAY, SOLARIZE
from tests.support.photos import generated_photos
from tests.support.statistics import counts_p, two_sample_p

DRAWS = 10_000
KEYS = sample_keys(0, 0, np.arange(DRAWS))
SIZES = [(224, 224), (64, 48), (37, 53), (2, 5), (5, 2), (1, 7), (7, 1), (1, 1)]


@pytest.fixture(scope="module")
def photos():
    return [Image.fromarray(photo).resize(size) for photo in generated_photos(2) for size in SIZES]


def second(text, places=0):
    """A stage; `places`: how many other stages stand before it."""
    return parse("center(8)|" + "vflip|" * places + text)[-1]


def applied(stage, photo, keys=KEYS[:1]) -> np.ndarray:
    """The photo after the stage, once for each key."""
    images = np.asarray(photo)[None].repeat(len(keys), 0)
    stage.apply(images, keys)
    return images


@pytest.mark.parametrize("text", ["gray", "solarize", "solarize(0)", "solarize(201)", "solarize(256)", "vflip(1)"])
def test_stages_without_a_choice_equal_torchvisions(text, photos):
    stage = second(text)
    for photo in photos:
        np.testing.assert_array_equal(applied(stage, photo)[0], np.asarray(stage.reference()(photo)))


@pytest.mark.parametrize("text", ["gray(0)", "solarize(p=0)", "vflip(0)", "blur(p=0)", "blur((0, 0))", "jitter(0)"])
def test_stages_that_never_happen_change_nothing(text, photos):
    for photo in photos:
        np.testing.assert_array_equal(applied(second(text), photo)[0], np.asarray(photo))


@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.7, 1.0, 1.37, 1.9, 2.0, 5.5, 30])
def test_blur_equals_pils_within_one(sigma, photos):
    for photo in photos:
        ours = applied(second(f"blur(({sigma}, {sigma}))"), photo)[0].astype(int)
        theirs = np.asarray(photo.filter(ImageFilter.GaussianBlur(sigma)), int)
        assert np.abs(ours - theirs).max() <= 1


ADJUST = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation]


@pytest.mark.parametrize("text", ["jitter(0.3)", "jitter(1.5)", "jitter(0.4, 0, 2)", "jitter(0, 0.9, 0)"])
def test_jitter_equals_torchvisions_with_the_same_factors_and_order(text, photos):
    stage = second(text)
    for photo in photos:
        keys = KEYS[:8] if photo.width > 100 else KEYS[:40]
        orders, factors = stage.draw(keys)
        for image, order, three in zip(applied(stage, photo, keys), orders, factors, strict=True):
            expected = photo
            for k in ORDERS[order]:
                expected = ADJUST[k](expected, float(three[k]))
            np.testing.assert_array_equal(image, np.asarray(expected))


def test_three_augment_is_the_drawn_one_of_the_three(photos):
    stage = second("three_augment")
    for photo in photos[1:]:
        choices, sigmas = stage.draw(KEYS[:30])
        for image, choice, sigma in zip(applied(stage, photo, KEYS[:30]), choices, sigmas, strict=True):
            text = {GRAY: "gray", SOLARIZE: "solarize(128)", BLUR: f"blur(({sigma}, {sigma}))"}[choice]
            np.testing.assert_array_equal(image, applied(second(text), photo)[0])


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("text", ["gray({})", "solarize(128, {})", "vflip({})", "blur((2, 2), {})"])
def test_stages_happen_with_their_probability(text, p):
    photo = np.array([[[10, 20, 30]], [[200, 100, 250]], [[5, 250, 90]]], np.uint8)
    images, always = applied(second(text.format(p)), photo, KEYS), applied(second(text.format(1)), photo)
    happened = (images == always).all((1, 2, 3))
    assert (images[~happened] == photo).all()
    assert abs(happened.mean() - p) <= 4 * np.sqrt(p * (1 - p) / DRAWS)


def test_blurs_are_drawn_as_deits(monkeypatch):
    found, stage = [], second("blur(p=0.8)")
    none = ImageFilter.BoxBlur(0)
    monkeypatch.setattr(ImageFilter, "GaussianBlur", lambda radius: found.append(radius) or none)
    torch.manual_seed(0)
    reference, photo = stage.reference(), Image.new("RGB", (1, 1))
    for _ in range(DRAWS):
        reference(photo)
    ours = stage.sigmas(KEYS)
    blurred = ours[ours > 0]
    assert two_sample_p(blurred, found) > 0.001
    counts = [[len(values), DRAWS - len(values)] for values in (blurred, found)]
    assert counts_p(*counts) > 0.001


def test_three_augment_chooses_as_the_reference():
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (3, 3, 3), np.uint8)
    stage = second("three_augment")
    torch.manual_seed(0)
    reference, image = stage.reference(), Image.fromarray(photo)
    theirs = np.stack([np.asarray(reference(image)) for _ in range(DRAWS)])

    def counts(images):
        gray = (images == applied(second("gray"), photo)).all((1, 2, 3)).sum()
        solarized = (images == applied(second("solarize"), photo)).all((1, 2, 3)).sum()
        return [gray, solarized, DRAWS - gray - solarized]

    ours = counts(applied(stage, photo, KEYS))
    assert counts_p(ours, counts(theirs)) > 0.001
    assert counts_p(ours, [DRAWS] * 3) > 0.001
    choices, sigmas = stage.draw(KEYS)
    assert ours == np.bincount(choices).tolist()
    blurs = second("blur").sigmas(KEYS[::-1].copy())
    for choice in (GRAY, SOLARIZE, BLUR):
        assert two_sample_p(sigmas[choices == choice], blurs) > 0.001


@pytest.mark.parametrize("strengths", [(0.3, 0.3, 0.3), (1.5, 0.2, 0.4)])
def test_jitter_draws_as_torchvision_does(strengths):
    reference = ColorJitter(*strengths)
    torch.manual_seed(1)
    ranges = reference.brightness, reference.contrast, reference.saturation, None
    params = [ColorJitter.get_params(*ranges) for _ in range(DRAWS)]
    orders, factors = second(f"jitter{strengths}").draw(KEYS)
    for k in range(3):
        assert two_sample_p(factors[:, k], [p[1 + k] for p in params]) > 0.001
    number = {order: i for i, order in enumerate(permutations(range(3)))}
    theirs = [number[tuple(k for k in p[0].tolist() if k < 3)] for p in params]
    assert counts_p(np.bincount(orders), np.bincount(theirs)) > 0.001
    assert counts_p(np.bincount(orders), [DRAWS] * 6) > 0.001
    together = np.corrcoef(np.column_stack([orders, factors]).T)[np.triu_indices(4, 1)]
    assert np.abs(together).max() < 4 / np.sqrt(DRAWS)


def test_stages_draw_independently_of_each_other():
    first, other = (second("three_augment", places).draw(KEYS) for places in (0, 1))
    both = np.bincount(3 * first[0] + other[0], minlength=9).reshape(3, 3)
    assert counts_p(*both) > 0.001
    drawn = [first[1], other[1], second("blur", 2).sigmas(KEYS), *second("jitter", 3).draw(KEYS)[1].T]
    assert np.abs(np.corrcoef(drawn)[np.triu_indices(len(drawn), 1)]).max() < 4 / np.sqrt(DRAWS)


@pytest.mark.parametrize("text", ["gray(0.5)", "solarize(128, 0.5)", "vflip", "blur(p=0.5)", "three_augment", "jitter"])
def test_a_result_depends_on_its_key_alone(text, photos):
    stage, keys = second(text), KEYS[:50]
    together = applied(stage, photos[2], keys)
    np.testing.assert_array_equal(together, applied(stage, photos[2], keys))
    alone = np.concatenate([applied(stage, photos[2], keys[i : i + 1]) for i in range(50)])
    np.testing.assert_array_equal(together, alone)
    assert len(np.unique(together, axis=0)) > 1
