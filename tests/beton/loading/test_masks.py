"""Masks and further images that share their image's crop, and geometry for boxes: torchvision's v2 is the reference."""

import inspect
import random

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

import beton
from beton.rng import sample_keys
from beton.stages.base import Mirror, Move, TopBottom
from beton.stages.filters import AREA
from beton.stages.parse import parse

PHOTOS, EPOCHS = 25, 40  # 1,000 geometries
# Older versions of torchvision clamp boxes to the image after each step
CAN_LEAVE_IMAGE = "clamping_mode" in inspect.signature(tv_tensors.BoundingBoxes.__new__).parameters
COLOUR = ["jitter", "gray(0.5)", "blur", "three_augment", "solarize(p=0.5)"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Photos with a mask of noise of the same size, and one of twice the size; an array image."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("masks") / "masks.beton"

    def sample(i):
        height, width = rng.integers(20, 90, 2)
        mask = rng.integers(0, 256, (height, width), np.uint8)
        photo = rng.integers(0, 256, (height, width, 3), np.uint8)
        return {"image": photo, "mask": mask, "fine": mask.repeat(2, 0).repeat(2, 1), "depth": mask.astype(np.float32)}

    fields = {"image": beton.fields.Image("raw"), "mask": beton.fields.Mask(), "fine": beton.fields.Mask("int16")}
    fields["depth"] = beton.fields.Array("float32", (None, None))
    beton.write([sample(i) for i in range(PHOTOS)], path, fields=fields, workers=2)
    return path


def drawn_text(draw: random.Random) -> str:
    """Stages drawn at random."""
    size = draw.randint(1, 70), draw.randint(1, 70)
    crops = [f"rrc({size}, scale=(0.01, 1))", f"center({size})", f"center({size}, 0.7, 'bilinear')"]
    crops += [f"src({size}, padding=0)", f"src({size}, padding=3, fill=(9, 0, 5))"]
    crops += [f"src({size}, padding=2)"] if min(size) > 4 else []
    more = ["flip", "vflip", "flip(1)", "translate(3)", "translate(40)", *COLOUR]
    return "|".join([draw.choice(crops), *draw.sample(more, draw.randint(0, 4))])


def reference(text: str, height: int, width: int, key: np.ndarray, given):
    """A tv_tensor moved by torchvision as these stages move a photo of this size with this key."""
    crop, *rest = parse(text)
    sides = np.array([height]), np.array([width])
    box, window = crop.boxes(*sides, key)[0].tolist(), crop.windows(*sides, key)[0].tolist()
    size = [crop.height, crop.width]
    if window[4] == AREA:
        given = tv.resized_crop(given, *box, size)
    else:
        rows, columns, top, left, _ = window
        given = tv.resize(given, [rows, columns], InterpolationMode.NEAREST)
        pad = 4 if rows > 4 and columns > 4 else 0
        mode = "reflect" if crop.fill is None and isinstance(given, tv_tensors.Mask) else "constant"
        given = given if not pad else tv.pad(given, [pad], fill=0, padding_mode=mode)
        given = tv.crop(given, top + pad, left + pad, *size)
    for stage in rest:
        if isinstance(stage, (Mirror, TopBottom)) and stage.mirrors(key)[0]:
            given = (tv.horizontal_flip if isinstance(stage, Mirror) else tv.vertical_flip)(given)
        if isinstance(stage, Move):
            down, right = stage.moves(key)[0].tolist()
            given = tv.crop(tv.pad(given, [50], fill=0), 50 - down, 50 - right, *size)
    return given


def test_masks_are_torchvisions_on_1000_drawn_geometries(path):
    draw = random.Random(0)
    with beton.open(path) as file:
        masks = [torch.from_numpy(file[i].mask) for i in range(PHOTOS)]
    for epoch in range(EPOCHS):
        text = drawn_text(draw)
        given = {"image": text, "shuffle": False, "columns": ("image", "mask", "fine"), "seed": 5, "workers": 2}
        with beton.Loader(path, PHOTOS, **given) as loader:
            (batch,) = loader.batches(epoch)
        assert batch.mask.dtype == torch.uint8 and batch.mask.shape[1:] == batch.image.shape[2:]
        for i, key in enumerate(sample_keys(5, epoch, np.arange(PHOTOS))):
            expected = reference(text, *masks[i].shape, np.array([key]), tv_tensors.Mask(masks[i]))
            assert torch.equal(batch.mask[i], expected), (text, i)


def moved(boxes: torch.Tensor, geometry, row: int, size: list[int]) -> torch.Tensor:
    """As docs/library.md moves them."""
    top, left, height, width = geometry.crop[row].tolist()
    boxes = tv.resized_crop(boxes, top, left, height, width, size)
    boxes = tv.horizontal_flip(boxes) if geometry.mirrored[row, 0] else boxes
    return tv.vertical_flip(boxes) if geometry.mirrored[row, 1] else boxes


@pytest.mark.skipif(not CAN_LEAVE_IMAGE, reason="torchvision's boxes are clamped before version 0.24")
def test_boxes_are_within_half_a_pixel_of_torchvisions_on_1000_drawn_geometries(path):
    draw, rng = random.Random(1), np.random.default_rng(1)
    for epoch in range(EPOCHS):
        text = drawn_text(draw)
        size = [parse(text)[0].height, parse(text)[0].width]
        given = {"image": text, "shuffle": False, "columns": ("image",), "seed": 6, "workers": 2}
        with beton.Loader(path, PHOTOS, with_geometry=True, **given) as loader:
            (batch,) = loader.batches(epoch)
        for i, key in enumerate(sample_keys(6, epoch, np.arange(PHOTOS))):
            height, width = batch.image_geometry.size[i].tolist()
            corners = np.sort(rng.random((3, 2, 2)) * [width, height], axis=1).reshape(3, 4)
            about = {"format": "XYXY", "canvas_size": (height, width), "clamping_mode": None}
            boxes = tv_tensors.BoundingBoxes(torch.from_numpy(corners).float(), **about)
            expected = reference(text, height, width, np.array([key]), boxes)
            found = moved(boxes, batch.image_geometry, i, size)
            torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), atol=0.5, rtol=0)


@pytest.mark.parametrize(
    "text", ["rrc((40, 30), scale=(0.2, 1))|jitter|flip(1)", "center(32, 1)", "src(24)|translate(2)"]
)
def test_further_images_follow_with_stages_of_their_own_in_whatever_size_they_are(tmp_path, text):
    rows = np.arange(80)[:, None].repeat(60, 1) + np.arange(60) // 10
    photo, fine = np.stack([rows] * 3, axis=2).astype(np.uint8), rows.repeat(2, 0).repeat(2, 1)
    sample = {"image": photo, "mask": rows, "fine": fine, "depth": fine.astype(np.float32), "second": photo}
    fields = {name: beton.fields.Mask() for name in ("mask", "fine")}
    fields |= {"image": beton.fields.Image("raw"), "depth": beton.fields.Array("float32", (None, None))}
    fields["second"] = beton.fields.Image("jpg", jpeg_quality=100)
    beton.write([sample] * 20, tmp_path / "a.beton", fields=fields, workers=2)
    follow = {"second": "like('image')|normalize(mean=0, std=1)", "depth": "like('image')"}
    with beton.Loader(tmp_path / "a.beton", 20, image=text, **follow, workers=2) as loader:
        (batch,) = loader
    mask = batch.mask.float()
    for found in (batch.fine.float(), batch.depth[:, 0], batch.second[:, 0] * 255):
        assert ((found - mask).abs() <= 4).float().mean() > 0.98


def test_views_have_geometry_each(path):
    views = {"big": ("rrc(32)|flip", 2), "small": ("rrc(16)", 1)}
    with beton.Loader(path, 8, views=views, columns=[], with_geometry=True, workers=2) as loader:
        batch = next(iter(loader))
    assert batch._fields == ("big", "small", "big_geometry", "small_geometry")
    assert not torch.equal(batch.big_geometry[0].crop, batch.big_geometry[1].crop)
    assert (batch.small_geometry[0].crop[:, 2:] >= 1).all() and not batch.small_geometry[0].mirrored.any()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"image": "rrc(24)|randaugment"}, "'randaugment' moves pixels in a way that .*'mask'.* cannot follow"),
        ({"image": "rrc(24)|randaugment", "mask": None, "fine": None, "with_geometry": True}, "'randaugment' moves"),
        ({"image": None}, "the mask 'mask' has no image to follow; give mask="),
        ({"image": "rrc(24)", "mask": "like('depth')"}, "the field 'mask' cannot follow 'depth'"),
        ({"image": "rrc(24)", "mask": "like('image', fill=300)"}, "fill=300 is no uint8"),
        ({"image": "rrc(24)", "mask": "like()"}, "cannot read 'like..'; write like"),
        ({"image": "like('image')"}, "the field 'image' cannot follow 'image'"),
        ({"image": None, "depth": "rrc(24)", "mask": "rrc(24)|flop"}, "unknown stage 'flop'"),
        ({"image": None, "mask": None, "fine": None, "with_geometry": True}, "no images .* have stages"),
    ],
)
def test_what_cannot_be_followed_is_an_error_that_says_what_to_do(path, given, words):
    with pytest.raises(beton.UserError, match=words):
        beton.Loader(path, 8, **given)


def test_what_is_free_shows_the_fill(path):
    text = {"image": "rrc(24)|translate(24)", "mask": "like('image', fill=255)", "fine": "like('image', fill=-1)"}
    with beton.Loader(path, PHOTOS, **text, columns=("image", "mask", "fine"), workers=2) as loader:
        (batch,) = loader
    free = (batch.image == 0).all(1)
    assert (
        free.any()
        and (batch.mask[free] == 255).float().mean() > 0.99
        and (batch.fine[free] == -1).float().mean() > 0.99
    )


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "int16", "int32", "int64"])
def test_masks_are_stored_without_loss_and_deflated_where_that_is_smaller(tmp_path, dtype):
    rng, high = np.random.default_rng(0), 2 if dtype == "bool" else 100
    masks = [rng.integers(0, high, (9, 13)), np.zeros((300, 200)), np.ones((1, 1)), np.tri(64)]
    masks = [mask.astype(dtype) for mask in masks]
    beton.write([{"m": mask} for mask in masks], tmp_path / "a.beton", fields={"m": beton.fields.Mask(dtype)})
    with beton.open(tmp_path / "a.beton") as file:
        assert file.fields == {"m": "mask"} and file.columns["m"].field == beton.fields.Mask(dtype)
        assert file.columns["m"].sizes[1] < 500
        for sample, mask in zip(file, masks, strict=True):
            assert sample.m.dtype == mask.dtype
            np.testing.assert_array_equal(sample.m, mask)
    for wrong in (np.full((2, 2), 1 << 40) if dtype != "int64" else np.ones((2, 2)), np.ones((2, 2, 2)), "text"):
        with pytest.raises(beton.UserError, match="instead of a mask|has not"):
            beton.write([{"m": wrong}], tmp_path / "b.beton", fields={"m": beton.fields.Mask(dtype)})


def test_damaged_masks_are_errors_of_their_sample(tmp_path):
    masks = [{"m": np.tri(60, dtype=np.uint8)} for _ in range(200)]
    beton.write(masks, tmp_path / "a.beton", fields={"m": beton.fields.Mask()}, workers=2)
    with beton.open(tmp_path / "a.beton") as file:
        starts, sizes = file.columns["m"].addresses.astype(int), file.columns["m"].sizes
    content, rng = np.memmap(tmp_path / "a.beton", np.uint8, "r+"), np.random.default_rng(0)
    for start, size in zip(starts, sizes, strict=True):
        content[start + rng.integers(size)] ^= 1 << rng.integers(8)
    wrong = 0
    with beton.Loader(tmp_path / "a.beton", 1, m="center(60, 1)", on_error="skip", workers=2) as loader:
        for batch in loader:
            wrong += not np.array_equal(batch.m[0], masks[0]["m"])  # a raw mask has no checksum but the file's
        assert wrong == 0 and len(loader.left_out) >= 190
