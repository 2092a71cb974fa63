"""Stages: their text, each against its reference, and the random numbers below them."""

import string

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from loading import area_weights, draw_photos, task, two_sample_p, uniform_p, write_beton
from torchvision.transforms import RandomResizedCrop

from pipelines.draws import mix, sample_keys, uniform
from pipelines.errors import UserError
from pipelines.loaders import open_loader
from pipelines.ops.normalize import NormalizeStage
from pipelines.stages import CROP, VALUES, known, parse

WRONG = {
    "": "cannot read the stage ''",
    "rrc(96)|": "cannot read the stage ''",
    "rrc(96)||flip": "cannot read the stage ''",
    "rrc(96": "cannot read the stage",
    "rrc.flip(96)": "cannot read the stage",
    "96": "cannot read the stage",
    "rrcc(96)": "did you mean 'rrc'",
    "rrc(96)|flipp": "did you mean 'flip'",
    "rrc(96)|nonsense": f"use one of {', '.join(known())}, or add pipelines/ops/nonsense.py",
    "flip|rrc(96)": "begin with rrc",
    "flip": "begin with rrc",
    "rrc(96)|center(96)": "one crop stage",
    "rrc(96)|normalize|flip": "put normalize last",
    "rrc(96)|normalize|normalize": "put normalize last",
    "rrc": "wrong arguments",
    "rrc(0)": "not a whole number",
    "rrc(96.5)": "not a whole number",
    "rrc(True)": "not a whole number",
    "rrc('96')": "not a whole number",
    "rrc(96, 1, 2, 3)": "wrong arguments",
    "rrc(96, size=96)": "wrong arguments",
    "rrc(96, scael=(0.1, 1))": "scael",
    "rrc(96, scale=0.5)": "not a pair",
    "rrc(96, scale=(1, 0.5))": "not in order",
    "rrc(96, scale=(0.1, 1.5))": "not a number",
    "rrc(96, ratio=(0, 1))": "not a number",
    "rrc(96, scale=(0.1, 1), scale=(0.2, 1))": "twice",
    "rrc(96, **{'scale': (0.1, 1)})": "key=value",
    "rrc(*[96])": "not literals",
    "rrc(size)": "not literals",
    "rrc(90 + 6)": "not literals",
    "rrc(int('96'))": "not literals",
    "rrc({[]: 1})": "not literals",
    "center(96, ratio=1.1)": "not a number",
    "center(96, ratio=1e999)": "not a number",
    "rrc(96)|flip(2)": "not a number",
    "rrc(96)|flip(p=1+2j)": "not a number",
    "rrc(96)|normalize(mean=(1, 2))": "three numbers",
    "rrc(96)|normalize(std=(1, 0, 1))": "not a number",
    "rrc(96)|fl\nip": "cannot read the stage 'fl ip'",
    "rrc(\0)": "cannot read the stage",
    "rrc(\ud800)": "cannot read the stage",
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_text_is_a_user_error_that_says_what_and_what_to_do(text):
    with pytest.raises(UserError) as caught:
        parse(text)
    assert WRONG[text] in str(caught.value)
    what, to_do = str(caught.value).rsplit("; ", 1)
    assert what and to_do


@pytest.mark.parametrize("text", ["(" * 5000, "-" * 100_000 + "1", "rrc(" + "[" * 150 + "]" * 150 + ")"])
def test_deeply_nested_text_is_a_user_error(text):
    with pytest.raises(UserError):
        parse(text)


def test_arguments_are_never_evaluated(tmp_path):
    file = tmp_path / "made"
    for code in (f"open({str(file)!r}, 'w')", f"__import__('os').mkdir({str(file)!r})"):
        for text in (f"rrc({code})", f"rrc(size={code})", f"rrc(96, *{code})", code, f"rrc(96, **{code})"):
            with pytest.raises(UserError):
                parse(text)
    assert not file.exists()


def test_valid_text_gives_the_stages_in_their_places():
    stages = parse(" rrc( 176 , scale=(0.25, 1)) |\n flip(0.25)|flip() | normalize(std=[1, 1, 1]) ")
    assert [type(s).__name__ for s in stages] == ["Rrc", "Flip", "Flip", "NormalizeStage"]
    assert [s.place for s in stages] == [0, 1, 2, 3]
    assert [stages[0].kind, stages[-1].kind] == [CROP, VALUES]
    assert (stages[0].size, stages[0].scale, stages[1].p, stages[2].p) == (176, (0.25, 1.0), 0.25, 0.5)
    assert stages[3].std == (1, 1, 1)
    assert parse("center(96, 1)")[0].ratio == 1


PARTS = st.sampled_from(
    ["rrc", "flip", "jitter", "normalize", "erase", "(", ")", "|", ",", "=", "9", "0.5", "[", "]", "-", "'"]
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), st.text(string.printable), st.lists(PARTS, max_size=12).map("".join)))
@example("rrc(0x" + "f" * 5000 + ")")
@example("rrc(" + "9" * 5000 + ")")
def test_any_text_is_stages_or_a_user_error(text):
    try:
        stages = parse(text)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert stages[0].kind == CROP


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


@settings(max_examples=300, deadline=None)
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


@pytest.mark.parametrize("stage", ["rrc(24)", "rrc(64, ratio=(0.2, 5))", "center(24, 0.8)", "center(96)"])
def test_crops_are_the_mean_over_the_area_of_each_pixel(stage, tmp_path):
    photos = [*draw_photos(30, 1, 120, seed=3), np.full((1, 1, 3), 77, np.uint8), *draw_photos(1, 24, 24)]
    keys = sample_keys(5, 2, np.arange(len(photos)))
    sizes = np.array([p.shape[:2] for p in photos])
    rectangles = parse(stage)[0].boxes(sizes[:, 0], sizes[:, 1], keys)
    path = write_beton(tmp_path / "raw.beton", photos)
    loader = open_loader("ffcv", task(path, stages=stage, seed=5, epoch=2, shuffle=False, drop_last=False))
    images = torch.cat([images for images, _ in loader]).permute(0, 2, 3, 1).numpy()
    for photo, (top, left, h, w), image in zip(photos, rectangles, images, strict=True):
        rows, columns = (area_weights(side, len(image)) for side in (h, w))
        expected = np.einsum("yr,rxc,zx->yzc", rows, photo[top : top + h, left : left + w], columns, optimize=True)
        assert np.abs(image - expected).max() <= 1.01  # rounded twice: between rows and columns, and at the end


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


# The generator as its paper has it, in Python's own integers
ALL, GOLDEN = 2**64 - 1, 0x9E3779B97F4A7C15


def paper_mix(x):
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & ALL
    x = (x ^ x >> 27) * 0x94D049BB133111EB & ALL
    return x ^ x >> 31


def paper_uniform(seed, epoch, sample, stage, draw):
    run = paper_mix(epoch * GOLDEN + paper_mix(seed + GOLDEN & ALL) & ALL)
    key = paper_mix(sample * GOLDEN + run & ALL)
    return (paper_mix(key + (stage * 1024 + draw + 1) * GOLDEN & ALL) >> 11) / 2**53


def test_the_hash_is_splitmix64():
    state, expected = 1234567, [6457827717110365317, 3203168211198807973, 9817491932198370423]
    for value in expected:  # the generator's published first numbers for this seed
        state = state + GOLDEN & ALL
        assert int(mix(np.uint64(state))) == paper_mix(state) == value


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**63 - 1),
    st.integers(0, 20),
    st.integers(0, 1023),
)
def test_draws_are_the_documented_numbers(seed, epoch, sample, stage, draw):
    key = sample_keys(seed, epoch, np.array([sample]))[0]
    assert uniform(key, stage, draw) == paper_uniform(seed, epoch, sample, stage, draw)


def test_draws_are_uniform_and_those_of_different_things_uncorrelated():
    def draws(seed=0, epoch=0, first=0, stage=0, draw=0):
        return [uniform(key, stage, draw) for key in sample_keys(seed, epoch, np.arange(first, first + 10_000))]

    kinds = [{}, {"seed": 1}, {"epoch": 1}, {"first": 1}, {"stage": 1}, {"draw": 1}, {"seed": 1, "epoch": 1}]
    found = np.array([draws(**kind) for kind in kinds])
    assert found.min() >= 0 and found.max() < 1
    for kind, values in zip(kinds, found, strict=True):
        assert uniform_p(values) > 0.001, kind
    others = np.corrcoef(found)[np.triu_indices(len(kinds), 1)]
    assert np.abs(others).max() < 4 / np.sqrt(10_000)
