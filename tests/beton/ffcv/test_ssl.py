"""FFCV-SSL's loaders: several views of a field by `custom_field_mapper`, and what was drawn for them as labels."""

import numpy as np
import pytest

import beton
from beton.errors import UserError
from beton.ffcv import transforms as ops
from beton.ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder, ResizedCropRGBImageDecoder
from beton.ffcv.libffcv import crop_image
from beton.ffcv.loader import Loader

SIZES = [(40, 30), (24, 50), (33, 33), (60, 41), (28, 28), (50, 64)]
PHOTOS = [np.random.default_rng(n).integers(0, 256, (*size, 3)).astype(np.uint8) for n, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    made = tmp_path_factory.mktemp("ssl") / "photos.beton"
    beton.write([(photo, n) for n, photo in enumerate(PHOTOS)], made, write_mode="raw", workers=1)
    return made


def test_views_of_one_field_and_the_crops_that_were_drawn(path):
    about = {"scale": (0.1, 0.6), "ratio": (0.7, 1.4), "seed": 5}
    crops = {"image": "image", "boxes": "image", "whole": "image", "corner": "image"}
    loader = Loader(
        path,
        batch_size=3,
        num_workers=2,
        seed=1,
        custom_field_mapper=crops,
        pipelines={
            "image": [ops.RandomResizedCrop(output_size=(16, 20), **about), ops.ToTensor()],
            "label": [IntDecoder(), ops.ToTensor(), ops.Squeeze()],
            "boxes": [ops.LabelRandomResizedCrop((16, 20), **about), ops.ToTensor()],
            "whole": [ops.PadRGBImageDecoder(), ops.ToTensor()],
            "corner": [ops.CornerCrop((20, 20), 0.5, "bottom_right"), ops.ToTensor()],
        },
    )
    seen = []
    for images, labels, boxes, whole, corners in loader:
        for image, label, box, photo, corner in zip(images, labels, boxes.tolist(), whole, corners, strict=True):
            pixels = PHOTOS[label]
            height, width = pixels.shape[:2]
            assert box[:2] == [width, height]
            assert (image.numpy() == crop_image(pixels.reshape(-1), 1, (height, width), box[2:], (16, 20))).all()
            assert (photo.numpy()[:height, :width] == pixels).all() and photo.shape == (60, 64, 3)
            side = min(height, width) // 2
            box = (height - side, width - side, side, side)
            assert (corner.numpy() == crop_image(pixels.reshape(-1), 1, (height, width), box, (20, 20))).all()
            seen.append(tuple(boxes.tolist()[0]))
    assert len(seen) == 6 and len(set(seen)) == 2


def test_without_a_seed_it_is_ffcv_s_decoder_and_a_second_seed_is_refused():
    made = ops.RandomResizedCrop((16, 16), ratio=(0.4, 1))
    assert type(made) is RandomResizedCropRGBImageDecoder and made.ratio == (0.4, 1)
    with pytest.raises(UserError, match="second_seed"):
        ops.RandomResizedCrop(output_size=(16, 16), seed=1, second_seed=2)


def test_a_decoder_of_a_user_s_crops_and_says_which_sample_it_cannot_crop(path):
    class Corner(ResizedCropRGBImageDecoder):
        @property
        def get_crop_generator(self):
            return lambda height, width, scale, ratio: (0, 0, 30, 30)

    def loader(indices):
        image = [Corner((30, 30)), ops.ToTensor()]
        return Loader(path, batch_size=2, num_workers=2, indices=indices, pipelines={"image": image})

    ((images, _),) = loader([0, 3])
    assert (images[1].numpy() == PHOTOS[3][:30, :30]).all()
    with pytest.raises(ValueError, match="sample 4: the crop .* is not within 28 x 28 pixels") as caught:
        list(loader([0, 4]))
    assert "Corner of the pipeline 'image'" in str(caught.value)


def test_the_file_is_called_path_too(path):
    assert len(list(Loader(path=path, batch_size=2, pipelines={"image": None}))) == 3
    for wrong in ({"batch_size": 2}, {"fname": path, "path": path, "batch_size": 2}, {"path": path}):
        with pytest.raises(TypeError, match="path"):
            Loader(**wrong)
