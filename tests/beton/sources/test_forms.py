"""The same photos from every form in which data sets are handed out: the same .beton, byte for byte."""

import gzip
import shutil

import numpy as np
import pytest
from PIL import Image

from beton.errors import UserError
from beton.format.file import BetonFile
from beton.sources import imagenet_tars, open_source
from beton.sources.imagefolder import PhotoFolder
from tests.support import forms
from tests.support.betons import card_of, payloads, sha256, stored_photos, write_cli, write_good, write_source
from tests.support.forms import FORMS
from tests.support.scripts import assert_user_error

HOW = {"write_mode": "proportion", "max_resolution": 96, "rest": "blocks", "seed": 3}


@pytest.fixture(scope="module")
def folder(photo_folder):
    return photo_folder / "val"


@pytest.fixture(scope="module")
def from_folder(folder, tmp_path_factory):
    """The .beton of the folder of photos."""
    return write_good(tmp_path_factory.mktemp("folder") / "a.beton", folder, split="val", **HOW)


@pytest.fixture
def out(tmp_path):
    (tmp_path / "form").mkdir()
    return tmp_path / "form"


@pytest.fixture(params=FORMS)
def form(request, folder, out):
    """Name of the source, where it finds its data, and the split."""
    source, make, needed, split = FORMS[request.param]
    pytest.importorskip(needed)
    return source, str(make(folder, out)), split


def test_every_form_gives_the_same_bytes_resumed_too(form, from_folder, tmp_path):
    name, data_dir, split = form
    path, done, options = tmp_path / "a.beton", [], {**HOW, "resume": True, "say": lambda text: None}
    mode = options.pop("write_mode")

    def stop(_):
        done.append(1)
        if len(done) == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_source(open_source(name, data_dir, split), path, mode, progress=stop, **options)
    card = write_source(open_source(name, data_dir, split), path, mode, **options)
    assert card["resumed"] == 20
    assert sha256(path) == sha256(from_folder)
    assert card["classes"] == card_of(from_folder)["classes"]


def test_every_form_gives_the_files_as_they_are_and_single_classes(form, folder, tmp_path):
    source, data_dir, split = form
    how = {"write_mode": "jpg", "passthrough": 1, "classes": "stars,dots"}
    path = tmp_path / "a.beton"
    if source.startswith("torchvision"):  # its labels are known when a sample is read
        assert_user_error(write_cli(path, data_dir, dataset=source, split=split, **how), "cfg.classes")
        how.pop("classes")
    write_good(path, data_dir, dataset=source, split=split, **how)
    photos, wanted = PhotoFolder(str(folder)), ["dots", "stars"] if "classes" in how else card_of(path)["classes"]
    files = [photos.read(i)[0] for i in range(len(photos)) if photos.classes[photos.label(i)] in wanted]
    assert payloads(path) == files
    assert card_of(path)["classes"] == wanted


def refused(name, data_dir, words, split="val"):
    with pytest.raises(UserError, match=words):
        source = open_source(name, str(data_dir), split)
        for i in range(len(source)):
            source.read(i)


def test_archives_that_are_damaged_or_lacking_are_errors(folder, out):
    pytest.importorskip("scipy")
    forms.imagenet_train(folder, out)
    refused("imagenet_tars", out, f"there is no {imagenet_tars.VAL} in ")
    forms.imagenet_val(folder, out)
    (out / imagenet_tars.DEVKIT).rename(out / "devkit")
    refused("imagenet_tars", out, f"there is no .*{imagenet_tars.DEVKIT}, which has the labels")
    (out / imagenet_tars.DEVKIT).write_bytes(b"no archive")
    refused("imagenet_tars", out, f"{imagenet_tars.DEVKIT} cannot be read")
    train = (out / imagenet_tars.TRAIN).read_bytes()
    for content in (train[: len(train) // 2], train[:-10240], train[:600], b"\0" + train[1:], gzip.compress(train)):
        (out / imagenet_tars.TRAIN).write_bytes(content)
        refused("imagenet_tars", out, "no tar, or damaged|its end is missing", "train")
    refused("imagenet_tars", folder, "nor a tar for each class")
    refused("imagenet_tars", out / "none", "there is no folder")


def test_devkit_of_other_photos_is_an_error(folder, out):
    pytest.importorskip("scipy")
    shutil.copytree(folder, out / "less")
    next((out / "less").glob("*/*")).unlink()
    devkit = forms.imagenet_val(out / "less", out) / imagenet_tars.DEVKIT
    labels = devkit.read_bytes()
    forms.imagenet_val(folder, out)
    devkit.write_bytes(labels)
    refused("imagenet_tars", out, "has 41 photos, and .* labels 40")


def test_tars_that_are_no_webdataset_are_errors(folder, out):
    pattern = forms.webdataset(folder, out)
    (out / "val-001.tar").rename(out / "other.tar")
    refused("webdataset", pattern, "there is no .*/val-001.tar")
    shutil.rmtree(out)
    out.mkdir()
    forms.class_tars(folder, out)
    refused("webdataset", out, "has no class: neither a number in .cls, nor `label` in .json")
    refused("webdataset", folder, "holds no tars")


def test_tables_without_images_or_classes_are_errors(folder, out):
    pytest.importorskip("pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": [b"1", b"2"], "text": ["a", "b"]}), out / "a.parquet")
    refused("huggingface", out, "has no column of ClassLabel .it has image, text.")
    pq.write_table(pa.table({"image": [b"1", b"2"], "label": [1, None]}), out / "a.parquet")
    refused("huggingface", out, "row 1 of group 0 in .* has no class .label=None.")
    (out / "a.parquet").write_bytes(b"PAR1")
    refused("huggingface", out, "cannot read .*a.parquet")
    (out / "data").mkdir()
    (out / "a.parquet").rename(out / "data" / "train.parquet")
    refused("huggingface", out, "holds Parquet or Arrow files of train, not of val")


def test_a_set_of_the_hub_is_fetched_and_read(folder, out, from_folder, tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    pytest.importorskip("pyarrow")
    asked = []

    def download(name, repo_type, revision, allow_patterns):
        asked.append((name, repo_type, revision, allow_patterns))
        if revision is None:  # kept as photos: the hub's own Parquet files are on another branch
            (tmp_path / "empty").mkdir()
            return str(tmp_path / "empty")
        return str(forms.parquet(folder, out))

    monkeypatch.setattr(hub, "snapshot_download", download)
    path = write_good(tmp_path / "a.beton", dataset="huggingface:owner/name", split="val", **HOW)
    assert sha256(path) == sha256(from_folder)
    assert [revision for _, _, revision, _ in asked] == [None, "refs/convert/parquet"]
    monkeypatch.undo()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused("huggingface:no name", "", "cannot fetch the data set no name")


def test_zips_that_cannot_be_read_are_errors(folder, out):
    path = forms.zipped(folder, out)
    refused("zip", out / "photos.zip/none", "there is no folder none in ")
    refused("zip", out / "none.zip", "there is no zip ")
    refused("zip", path / "val/dots", "photos but no class folders")
    content = bytearray(path.read_bytes())
    content[2000:2100] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(OSError, match="Bad CRC|invalid"):
        [open_source("zip", str(path), "val").read(i) for i in range(41)]
    path.write_bytes(content[:-30])
    refused("zip", path, "is not a zip file")


def test_torchvision_sets_that_are_not_there_are_errors(out):
    refused("torchvision:Flower", out, "torchvision has no data set 'Flower'; give torchvision:NAME")
    refused("torchvision", out, "not said which of torchvision's sets")
    refused("torchvision:Flowers102", out, "cannot open Flowers102 .*; fetch it: python -c")
    refused("zip:a", out, "the source 'zip' is one data set; leave out ':a'")


def test_a_set_of_torchvision_that_gives_pixels_is_written(folder, out, tmp_path):
    data = out / "fgvc-aircraft-2013b" / "data"
    (data / "images").mkdir(parents=True)
    (data / "variants.txt").write_text("Cessna 172\nDC-10\n")
    (data / "images_variant_val.txt").write_text("0001 DC-10\n0002 Cessna 172\n")
    photos = sorted(folder.glob("*/*"))[:2]
    for number, photo in enumerate(photos, 1):
        shutil.copy(photo, data / "images" / f"{number:04d}.jpg")
    path = write_good(tmp_path / "a.beton", out, dataset="torchvision:FGVCAircraft", split="val", write_mode="raw")
    assert card_of(path)["classes"] == ["Cessna 172", "DC-10"]
    for pixels, photo in zip(stored_photos(path), photos, strict=True):
        np.testing.assert_array_equal(pixels, np.asarray(Image.open(photo)))
    with BetonFile(path) as file:
        assert file.labels.tolist() == [1, 0]
