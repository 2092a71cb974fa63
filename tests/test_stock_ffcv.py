"""Against stock FFCV 1.0.2, in a process with a time limit: it hangs where something fails."""

import numpy as np
import pytest
import torch
from loading import draw_photos, run_code, task

from pipelines.loaders import open_loader

# Writes a JPEG .beton of the photos in argv[1] to argv[2] with its own writer, and reads it with its own
# loader through a centre crop into argv[3].
STOCK = """
import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.basics import IntDecoder
from ffcv.fields.rgb_image import CenterCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.writer import DatasetWriter

class Photos:
    def __init__(self):
        self.photos = list(np.load(sys.argv[1]).values())
    def __len__(self):
        return len(self.photos)
    def __getitem__(self, i):
        return self.photos[i], i

fields = {"image": RGBImageField(write_mode="jpg"), "label": IntField()}
DatasetWriter(sys.argv[2], fields, num_workers=1).from_indexed_dataset(Photos())
pipelines = {"image": [CenterCropRGBImageDecoder((96, 96), ratio=0.875)], "label": [IntDecoder()]}
loader = Loader(sys.argv[2], 8, num_workers=1, order=OrderOption.SEQUENTIAL, drop_last=False, pipelines=pipelines)
found = [(images.copy(), labels.copy()) for images, labels in loader]
images, labels = (np.concatenate(part) for part in zip(*found))
np.savez(sys.argv[3], images=images, labels=labels[:, 0])
"""


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """The .beton that stock FFCV wrote, and what its centre crop makes of it."""
    folder = tmp_path_factory.mktemp("stock")
    paths = [folder / name for name in ("photos.npz", "stock.beton", "images.npz")]
    np.savez(paths[0], *draw_photos(37, 8, 400))
    run_code(STOCK, *paths, timeout=120)
    return paths[1], np.load(paths[2])


def test_a_centre_crop_is_stock_ffcvs_but_for_its_less_exact_decoding(stock):
    path, theirs = stock
    stages = "center(96, ratio=0.875)"
    ours = list(open_loader("ffcv", task(path, stages=stages, shuffle=False, drop_last=False)))
    images = torch.cat([images for images, _ in ours]).permute(0, 2, 3, 1).numpy()
    difference = np.abs(images.astype(int) - theirs["images"])
    assert difference.mean() < 2 and np.quantile(difference, 0.999) <= 10
    np.testing.assert_array_equal(torch.cat([labels for _, labels in ours]).numpy(), theirs["labels"])


def test_a_file_that_stock_ffcv_wrote_opens_without_a_card(stock):
    path, _ = stock
    assert [file.name for file in path.parent.glob("stock*")] == ["stock.beton"]
    loader = open_loader("ffcv", task(path))
    assert loader.num_samples == 37 and loader.classes == [str(i) for i in range(37)]
    labels = torch.cat([labels for _, labels in loader])
    assert len(set(labels.tolist())) == len(labels) == 32
