"""Stock FFCV 1.0.2 reads what we write, and we read what it writes."""

import importlib.util
import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from beton.format import records as format_records
from beton.format.fields import by_type_id
from beton.format.fields.image import Image as ImageField
from beton.format.fields.int import Int
from beton.format.file import BetonFile
from pipelines import open_pipeline
from tests.support import stock_ffcv, turbo
from tests.support.betons import JPEG, RAW, image_records, payloads, stored_photos, write_good
from tests.support.loaders import labels_of, task
from tests.support.photos import make_folder
from tests.support.scripts import Forked

MODES = {
    "raw": {"write_mode": "raw"},
    "jpg": {"write_mode": "jpg"},
    "proportion": {"write_mode": "proportion", "compress_probability": 0.4},
    "smart": {"write_mode": "smart", "smart_threshold": 100},
    "smart_raw": {"write_mode": "smart"},
}


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """Our files in all modes and one of FFCV's, read by FFCV in one process: (folder, photos as stored)."""
    if not importlib.util.find_spec("ffcv"):
        pytest.skip("stock FFCV is not installed")
    out = tmp_path_factory.mktemp("stock")
    photos = make_folder(out / "photos", [(60, 90)] * 12)
    files = [write_good(out / f"{mode}.beton", out / "photos", max_resolution=48, **cfg) for mode, cfg in MODES.items()]
    files.append(write_good(out / "blocks.beton", out / "photos", write_mode="proportion", rest="blocks"))
    process = Forked(out / "process", stock_ffcv.main, out, [*map(str, files), str(out / "stock.beton")])
    try:  # it may hang, and its writer has processes
        assert process.end() == 0, process.errors
    finally:
        process.stop()
    shrunk = [cv2.resize(photo, (48, 32), interpolation=cv2.INTER_AREA) for photo in photos]
    return out, shrunk


@pytest.mark.parametrize("mode", MODES)
def test_stock_ffcv_reads_what_we_write(stock, mode):
    out, photos = stock
    stored = payloads(out / f"{mode}.beton")
    found = np.load(out / f"{mode}.beton.npz")
    assert found["labels"].ravel().tolist() == [0] * 6 + [1] * 6
    assert found["images"].shape == (12, 32, 48, 3)
    modes = image_records(out / f"{mode}.beton")["mode"].tolist()
    for photo, image, payload, how in zip(photos, found["images"], stored, modes, strict=True):
        if how == RAW:
            np.testing.assert_array_equal(image, photo)
        else:
            np.testing.assert_array_equal(image, turbo.decode(payload, 32, 48, turbo.FAST))
            assert np.abs(image.astype(int) - np.asarray(Image.open(io.BytesIO(payload)))).max() <= 4
    jpegs = {"raw": 0, "jpg": 12, "proportion": 5, "smart": 12, "smart_raw": 0}
    assert modes.count(JPEG) == jpegs[mode]
    # It is JPEGs with restart markers that FFCV has read
    assert sum(b"\xff\xdd\0\4\0\3" in payload for payload in stored) == jpegs[mode]


def test_stock_ffcv_refuses_a_file_with_blocks(stock):
    assert json.loads((stock[0] / "refused.json").read_text()) == {"blocks.beton": 7}


@pytest.mark.parametrize("name", [*MODES, "stock"])
def test_ffcvs_reader_finds_the_tables_that_we_find(stock, name):
    found = np.load(stock[0] / f"{name}.beton.npz")
    with BetonFile(stock[0] / f"{name}.beton") as file:
        assert file.page_size == found["page_size"]
        assert list(file.fields) == found["names"].tolist()
        for field, column in file.columns.items():
            theirs = found[f"field_{field}"]
            assert column.records.dtype == theirs.dtype
            assert column.records.tolist() == theirs.tolist()
        size_at = dict(found["table"][["ptr", "size"]].tolist())
        image = file.columns["image"]
        assert image.sizes.tolist() == [size_at[at] for at in image.addresses.tolist()]


def test_our_record_types_are_ffcvs(stock):
    ours = [format_records.HEADER, format_records.DESCRIPTOR, format_records.ALLOCATION, ImageField.record]
    fields = by_type_id("", {str(i): i for i in (0, 1, 2, 3, 5)})
    ours += [field.record for field in fields.values()]
    ours += [format_records.metadata_record([ImageField.record, Int.record])]
    assert json.loads((stock[0] / "types.json").read_text()) == [str(dtype) for dtype in ours]


def test_file_of_stock_ffcv_is_read(stock):
    path = stock[0] / "stock.beton"
    originals = np.load(stock[0] / "originals.npz")
    with BetonFile(path) as file:
        assert file.card is None
        assert file.fields == {"image": "rgb_image", "weight": "float", "label": "int"}
        assert (len(file), file.page_size) == (9, 1 << 21)
        assert file.columns["weight"].records.tolist() == [i / 3 for i in range(9)]
        assert file.labels.tolist() == [11 * i for i in range(9)]
    modes = image_records(path)["mode"].tolist()
    for i, (photo, mode) in enumerate(zip(stored_photos(path), modes, strict=True)):
        original = originals[f"arr_{i}"]
        assert photo.shape == original.shape
        assert mode == JPEG or (photo == original).all()


def test_a_file_of_stock_ffcv_is_loaded_without_a_card(stock):
    with open_pipeline("beton", task(stock[0] / "stock.beton", drop_last=False)) as pipeline:
        assert pipeline.num_samples == 9 and pipeline.classes == [str(i) for i in range(89)]
        assert sorted(labels_of(pipeline.batches(0))) == [11 * i for i in range(9)]
