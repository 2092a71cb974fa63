"""FFCV's operations and FFCV-SSL's, one batch at a time, against NumPy."""

import numpy as np
import pytest
import torch

from beton.errors import UserError
from beton.ffcv.libffcv import imdecode, memcpy, resize_crop
from beton.ffcv.pipeline import Compiler, PipelineSpec
from beton.ffcv.pipeline.state import State
from beton.ffcv.segment import Segment
from beton.ffcv.transforms import (
    Convert,
    Cutout,
    GaussianBlur,
    ImageMixup,
    LabelColorJitter,
    LabelGaussianBlur,
    LabelGrayscale,
    LabelMixup,
    LabelSolarization,
    LabelTranslate,
    MixupToOneHot,
    NormalizeImage,
    Poison,
    RandomBrightness,
    RandomColorJitter,
    RandomContrast,
    RandomErasing,
    RandomGrayscale,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomSaturation,
    RandomSolarization,
    RandomTranslate,
    ReplaceLabel,
    Rotate,
    Squeeze,
    ToDevice,
    ToTensor,
    ToTorchImage,
    View,
)  # fmt: skip
from beton.ffcv.transforms.color_jitter import _gray

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 20, 24, 3)).astype(np.uint8)
LABELS = np.arange(6)[:, None]
INDICES = np.array([7, 3, 11, 0, 5, 9])
MEAN, STD = np.array([120.0, 110, 100]), np.array([60.0, 50, 40])


def run(batch, *operations, number=0):
    """What they make of a batch, and the state behind them."""
    segment = Segment("image", operations, State(True, torch.device("cpu"), batch.shape[1:], batch.dtype), 8)
    return segment.run(batch.copy(), INDICES[: len(batch)], 1, number), segment.state


def changed(*operations, **more):
    return run(IMAGES, *operations, **more)[0]


def test_flip_translate_and_cutout_show_what_they_should():
    assert (changed(RandomHorizontalFlip(1.0)) == IMAGES[:, :, ::-1]).all()
    assert (changed(RandomHorizontalFlip(0.0)) == IMAGES).all()
    padded = np.pad(IMAGES, ((0, 0), (4, 4), (4, 4), (0, 0)))
    padded[padded == 0] = 9
    for image, around in zip(changed(RandomTranslate(4, (9, 9, 9))), padded, strict=True):
        shown = [around[y : y + 20, x : x + 24] for y in range(9) for x in range(9)]
        assert any((image[image != 0] == part[image != 0]).all() for part in shown)
    cut = (changed(Cutout(5, (1, 2, 3))) != IMAGES).any(3)
    rows, columns = cut.any(2).sum(1), cut.any(1).sum(1)
    assert (rows == 5).all() and (columns == 5).all()
    with pytest.raises(ValueError, match="does not fit"):
        changed(Cutout(21))


@pytest.mark.parametrize("kind", [RandomBrightness, RandomContrast, RandomSaturation])
def test_blends_are_between_the_image_and_the_plain_one(kind):
    made = changed(kind(0.5, p=1.0)).astype(float)
    gray = np.array([[[_gray(*pixel) for pixel in row] for row in image] for image in IMAGES])[..., None].astype(float)
    plain = {RandomBrightness: 0 * gray, RandomContrast: gray.mean((1, 2, 3), keepdims=True), RandomSaturation: gray}
    for image, before, other in zip(made, IMAGES.astype(float), plain[kind], strict=True):
        clear = (image > 0) & (image < 255) & (abs(before - other) > 40)
        factors = (image - other)[clear] / (before - other)[clear]
        assert np.ptp(factors) < 0.06 and 0.45 < factors.mean() < 1.55
    assert (changed(kind(0.5, p=0.0)) == IMAGES).all()


@pytest.mark.parametrize("same", [True, False])
def test_mixup_of_images_and_labels_has_the_same_shares(same):
    labels, state = run(LABELS, LabelMixup(0.4, same), ToTensor(), MixupToOneHot(7))
    assert state.shape == (7,) and torch.allclose(labels.sum(1), torch.ones(6))
    share = labels[torch.arange(6), torch.arange(6)].numpy().reshape(-1, 1, 1, 1)
    wanted = share * IMAGES + (1 - share) * np.roll(IMAGES, 1, 0)
    assert abs(changed(ImageMixup(0.4, same)) - wanted).max() < 1.01
    assert (np.unique(share).size == 1) == same


def test_poison_and_replace_label_find_their_samples():
    mask, alpha = np.full((20, 24, 3), 200.0), np.full((20, 24), 0.5)
    chosen = np.isin(INDICES, [3, 5, 100])
    made = changed(Poison(mask, alpha, [5, 3, 100]))
    assert (made[~chosen] == IMAGES[~chosen]).all()
    assert (made[chosen] == (IMAGES[chosen] * 0.5 + 100).astype(np.uint8)).all()
    assert (run(LABELS, ReplaceLabel([5, 3, 100], 77))[0][chosen] == 77).all()
    with pytest.raises(ValueError, match="mask of"):
        changed(Poison(mask[:5], alpha, [5]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_normalized_images_are_those_of_numpy_wherever_it_stands(dtype):
    wanted = torch.from_numpy(((IMAGES - MEAN) / STD).astype(dtype)).permute(0, 3, 1, 2)
    normalize = NormalizeImage(MEAN, STD, dtype)
    for chain in (
        [normalize, View(dtype), ToTensor(), ToTorchImage()],
        [normalize, ToTensor(), ToTorchImage()],
        [ToTensor(), normalize, ToTorchImage()],
        [ToTensor(), ToDevice("cpu"), ToTorchImage(), normalize],
        [ToTensor(), ToTorchImage(), normalize, View(wanted.dtype)],
    ):
        made, state = run(IMAGES, *chain)
        assert torch.equal(made, wanted) and made.is_contiguous(memory_format=torch.channels_last)
        assert (state.shape, state.dtype, state.jit_mode) == ((3, 20, 24), wanted.dtype, False)
    with pytest.raises(ValueError, match="takes images of uint8"):
        run(IMAGES, ToTensor(), Convert(torch.float16), normalize)


def test_squeeze_keeps_the_batch_and_convert_takes_both_kinds_of_types():
    for count in (1, 6):
        made, state = run(LABELS[:count], ToTensor(), Squeeze(), Convert(np.float32))
        assert made.shape == (count,) and made.dtype == torch.float32 and state.shape == ()
    assert run(LABELS, Squeeze(1), Convert(torch.int16), ToTensor())[0].dtype == torch.int16
    assert run(LABELS, Squeeze(-1))[0].shape == (6,)
    assert run(IMAGES, ToTensor(), ToTorchImage(channels_last=False))[0].is_contiguous()
    with pytest.raises(UserError, match="ToTorchImage takes images"):
        run(LABELS, ToTensor(), ToTorchImage())


def test_a_crop_of_all_of_an_image_is_the_image():
    square = np.ascontiguousarray(IMAGES[:, :, :20])
    assert (run(square, RandomResizedCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0), size=20))[0] == square).all()
    made, state = run(IMAGES, RandomResizedCrop((0.1, 0.5), (0.7, 1.4), 9))
    assert made.shape == (6, 9, 9, 3) and state.shape == (9, 9, 3)


@pytest.mark.parametrize(
    ("operation", "label"),
    [
        (RandomGrayscale(0.5, seed=4), LabelGrayscale(0.5, seed=4)),
        (RandomSolarization(0.5, 100, seed=4), LabelSolarization(0.5, 100, seed=4)),
        (GaussianBlur(0.5, 5, seed=4), LabelGaussianBlur(0.5, 5, seed=4)),
        (RandomColorJitter(0.5, seed=4), LabelColorJitter(0.5, 0.8, 0.4, 0.4, 0.2, seed=4)),
        (RandomTranslate(3, (0, 0, 0), seed=4), LabelTranslate(3, seed=4)),
    ],
)
def test_labels_say_what_was_drawn_for_images_with_the_same_seed(operation, label):
    nothing = {LabelColorJitter: [1, 1, 1, 0], LabelTranslate: [3, 3]}.get(type(label), [0])
    for number in (0, 1):
        drawn = run(LABELS, label, number=number)[0]
        assert (drawn[:, 0] == LABELS[:, 0]).all() and drawn.dtype == np.float32
        stays = (changed(operation, number=number) == IMAGES).all((1, 2, 3))
        assert (stays == (drawn[:, 1:] == np.float32(nothing)).all(1)).all()
    with pytest.raises(UserError, match="has no seed"):
        run(LABELS, type(label)(3))


def test_jitter_of_the_hue_keeps_greys_and_a_whole_turn_changes_nothing():
    grey = np.repeat(IMAGES[..., :1], 3, 3)
    turned = RandomColorJitter(1.0, 0, 0, 0, (-0.5, 0.5))
    assert abs(run(grey, turned)[0].astype(int) - grey).max() <= 1
    assert abs(changed(RandomColorJitter(1.0, 0, 0, 0, (0.5, 0.5))).astype(int) - IMAGES).max() > 50
    assert abs(changed(RandomColorJitter(1.0, 0, 0, 0, 0)).astype(int) - IMAGES).max() == 0


def test_rotation_and_erasing():
    assert (changed(Rotate(1.0, 0.0)) == IMAGES).all() and (changed(Rotate(1.0, 1.0)) != IMAGES).any()
    erased = (changed(RandomErasing(1.0, (0.2, 0.3), (1.0, 1.0), (300 % 256, 1, 2))) == (44, 1, 2)).all(3).mean((1, 2))
    assert ((erased > 0.15) & (erased < 0.35)).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float64])
def test_memcpy_copies_bytes_in_python_and_compiled(dtype):
    data = (np.random.default_rng(1).random((10, 9)) * 255).astype(dtype)
    for copy in (memcpy, Compiler.compile(memcpy)):
        made = np.zeros_like(data)
        copy(data, made)
        assert (made == data).all()


def test_compiled_code_decodes_and_resizes():
    import cv2

    good, payload = cv2.imencode(".jpg", np.full((30, 40, 3), 90, np.uint8))
    decode, resize = Compiler.compile(imdecode), Compiler.compile(resize_crop)
    pixels, small = np.zeros(30 * 40 * 3, np.uint8), np.zeros((7, 8, 3), np.uint8)
    decode(payload.reshape(-1), pixels, 30, 40, 30, 40, 0, 0, 1, 1, False, False)
    resize(pixels.reshape(30, 40, 3), 2, 20, 3, 30, small)
    assert good and abs(pixels.astype(int) - 90).max() <= 1 and abs(small.astype(int) - 90).max() <= 1
    with pytest.raises(ValueError, match="damaged|JPEG"):
        decode(payload.reshape(-1)[:50], pixels, 30, 40, 30, 40, 0, 0, 1, 1, False, False)


def test_a_spec_fills_in_the_field_s_decoder():
    from beton.ffcv.fields.decoders import CenterCropRGBImageDecoder, IntDecoder

    spec = PipelineSpec("label")
    spec.accept_decoder(IntDecoder, "label")
    assert isinstance(spec.decoder, IntDecoder) and isinstance(spec.transforms[0], ToTensor)
    with pytest.raises(ValueError, match="put a decoder first"):
        PipelineSpec("image").accept_decoder(CenterCropRGBImageDecoder, "image")
