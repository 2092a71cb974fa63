import hashlib
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, assert_user_error
from PIL import Image
from torchvision.datasets import CIFAR10, ImageFolder
from writing import draw, files_in, stored_photos, write_cli, write_good

from pipelines.beton import read_card, read_index
from pipelines.errors import UserError
from pipelines.sources import known, open_source


def save(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw(seed, 20, 30)).save(path)


def test_photo_folder_is_in_torchvisions_order(tmp_path):
    names = ["b/10.png", "b/9.png", "B/x.jpg", "a/z/1.png", "a/2.png", "a/y.JPEG", "é/ü.webp", "c d/1 2.bmp"]
    for name in names:
        save(tmp_path / name)
    for ignored in ("a/notes.txt", "top.png", ".hidden"):
        (tmp_path / ignored).write_text("")
    source, expected = open_source("imagefolder", str(tmp_path), "train"), ImageFolder(str(tmp_path))
    assert source.classes == expected.classes == ["B", "a", "b", "c d", "é"]
    assert [(source.name(i), source.label(i)) for i in range(len(source))] == expected.samples
    assert len(source) == len(names)
    assert source.read(0) == (tmp_path / "B" / "x.jpg").read_bytes()


def test_photos_may_lie_deeper_than_their_class_folder(tmp_path):
    for i in range(6):
        save(tmp_path / "train" / f"n0144353{i % 2}" / "images" / f"n0144353{i % 2}_{i}.JPEG", i)
    path = write_good(tmp_path / "a.beton", tmp_path / "train", dataset="imagenet")
    assert read_card(path)["classes"] == ["n01443530", "n01443531"]
    assert read_index(path).metadata["label"].tolist() == [0] * 3 + [1] * 3


def test_folder_of_splits_is_an_error_that_says_which_one_to_give(tmp_path):
    for split in ("train", "val"):
        save(tmp_path / split / "n01" / "a.png")
    done = write_cli(tmp_path / "a.beton", tmp_path)
    assert_user_error(done, f"{tmp_path} holds train and val, not classes", f"give {tmp_path}/train")


def test_folder_that_is_no_dataset_is_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "no_photos" / "class").mkdir(parents=True)
    save(tmp_path / "flat" / "a.png")
    path = tmp_path / "a.beton"
    assert_user_error(write_cli(path, tmp_path / "empty"), f"{tmp_path}/empty has no class folders")
    assert_user_error(write_cli(path, tmp_path / "flat"), f"{tmp_path}/flat has no class folders")
    assert_user_error(write_cli(path, tmp_path / "no_photos"), "has no photos in its class folders")
    assert_user_error(write_cli(path, tmp_path / "none"), f"there is no folder {tmp_path}/none")
    assert_user_error(write_cli(path, tmp_path / "flat" / "a.png"), "there is no folder")
    assert_user_error(write_cli(path), "cfg.data_dir")


def test_class_without_photos_keeps_its_number(tmp_path):
    save(tmp_path / "photos" / "c" / "a.png")
    for name in "ab":
        (tmp_path / "photos" / name).mkdir()
    path = write_good(tmp_path / "a.beton", tmp_path / "photos")
    assert read_index(path).metadata["label"].tolist() == [2]
    assert read_card(path)["samples_per_class"] == {"a": 0, "b": 0, "c": 1}


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A made-up CIFAR-10 of 5 x 4 and 6 photos, in the format of its Python version; (folder, pixels, labels)."""
    folder, rng = tmp_path / "data" / "cifar-10-batches-py", np.random.default_rng(0)
    folder.mkdir(parents=True)

    def put(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    pixels, labels = rng.integers(0, 256, (26, 3, 32, 32), np.uint8), rng.integers(0, 10, 26).tolist()
    parts = {f"data_batch_{i + 1}": slice(4 * i, 4 * i + 4) for i in range(5)} | {"test_batch": slice(20, 26)}
    lists = [put(name, {"data": pixels[s].reshape(-1, 3072), "labels": labels[s]}) for name, s in parts.items()]
    monkeypatch.setattr(CIFAR10, "train_list", lists[:5])
    monkeypatch.setattr(CIFAR10, "test_list", lists[5:])
    meta = put("batches.meta", {"label_names": [f"thing {i}" for i in range(10)]})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})
    return folder.parent, pixels.transpose(0, 2, 3, 1), labels


@pytest.mark.parametrize(("split", "part"), [("train", slice(0, 20)), ("val", slice(20, 26))])
def test_cifar_is_written_from_its_files(cifar, tmp_path, split, part):
    folder, pixels, labels = cifar
    path = write_good(tmp_path / "a.beton", folder, split=split, dataset="cifar", write_mode="raw")
    np.testing.assert_array_equal(np.stack(stored_photos(path)), pixels[part])
    assert read_index(path).metadata["label"].tolist() == labels[part]
    assert read_card(path)["classes"] == [f"thing {i}" for i in range(10)]


def test_incomplete_cifar_is_one_line_and_nothing_is_downloaded(cifar, tmp_path):
    (cifar[0] / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"damaged")
    for folder in (cifar[0], tmp_path / "none"):
        done = write_cli(tmp_path / "a.beton", folder, dataset="cifar")
        assert_user_error(done, f"{folder} has no complete cifar-10-batches-py")
    assert files_in(tmp_path) == ["data"]


def test_generated_source_needs_no_folder(tmp_path):
    path = write_good(tmp_path / "a.beton", dataset="generated", subset=12, write_mode="jpg", max_resolution=64)
    assert read_index(path).metadata["label"].tolist() == [*range(10), 0, 1]
    assert max(max(photo.shape) for photo in stored_photos(path)) == 64
    assert read_card(path)["source"] == {"name": "generated", "data_dir": None, "split": "train"}


def test_unknown_source_is_answered_with_the_known_ones():
    assert known() == ["cifar", "generated", "imagefolder", "imagenet"]
    with pytest.raises(UserError, match="did you mean 'cifar'.*pipelines/sources/cfar.py"):
        open_source("cfar", None, "train")
    with pytest.raises(UserError, match="^unknown source 'os'; use one of cifar, generated"):
        open_source("os", None, "train")


def write_imagenet(*arguments, **env):
    """The script, with nothing of the caller's environment that it looks at."""
    names = ("IMAGENET_DIR", "DATA_DIR", "WRITE_DIR", "PYTHON")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    command = [str(ROOT / "write_imagenet.sh"), *arguments]
    env = {**clean, "PYTHON": sys.executable, **{name: str(value) for name, value in env.items()}}
    return subprocess.run(command, env={**env}, cwd="/", capture_output=True, text=True, timeout=120)


@pytest.fixture
def recorder(tmp_path):
    """A stand-in for Python that writes its arguments down and fails where FAIL is among them."""
    script = tmp_path / "recorder"
    script.write_text('#!/bin/sh\nprintf "%s\\n" "$*" >> "$0.log"\ncase "$*" in *$FAIL*) exit 3;; esac\n')
    script.chmod(0o755)
    return script


def calls(recorder):
    return recorder.with_name("recorder.log").read_text().splitlines()


def test_write_imagenet_writes_both_betons(tmp_path):
    # The last value of an option counts, so photos need not be there
    more = ["--cfg.dataset=generated", "--cfg.subset=6"]
    betons = tmp_path / "new" / "betons"
    done = write_imagenet("32", "0.50", "90", *more, IMAGENET_DIR="/photos", WRITE_DIR=betons)
    assert done.returncode == 0, done.stderr
    names = ["train_32_0.50_90.beton", "val_32_0.50_90.beton"]
    assert files_in(betons) == sorted(names + [f"{name}.json" for name in names])
    card = read_card(betons / names[1])
    assert card["samples_per_mode"] == {"jpg": 3, "raw": 3}
    assert card["source"] == {"name": "generated", "data_dir": "/photos/val", "split": "val"}
    given = {"write_mode": "proportion", "max_resolution": 32, "compress_probability": 0.5, "jpeg_quality": 90}
    assert card["parameters"].items() >= given.items()


def test_write_imagenet_passes_further_arguments_on(tmp_path, recorder):
    more = ["--cfg.subset=5", "--cfg.on_error=skip"]
    env = {"DATA_DIR": "/my photos", "WRITE_DIR": tmp_path / "out", "PYTHON": recorder, "FAIL": "nothing"}
    assert write_imagenet("500", "1", "80", *more, **env).returncode == 0
    assert len(calls(recorder)) == 2
    for call, split in zip(calls(recorder), ("train", "val"), strict=True):
        assert call.startswith(f"{ROOT}/write_dataset.py ")
        assert f"--cfg.data_dir=/my photos/{split} " in call
        assert f"--cfg.write_path={tmp_path}/out/{split}_500_1_80.beton" in call
        assert call.endswith(" --cfg.subset=5 --cfg.on_error=skip")


def test_write_imagenet_stops_at_the_first_failure(tmp_path, recorder):
    env = {"IMAGENET_DIR": "/photos", "WRITE_DIR": tmp_path, "PYTHON": recorder, "FAIL": "split=train"}
    assert write_imagenet("500", "1", "80", **env).returncode == 3
    assert len(calls(recorder)) == 1


def test_write_imagenet_says_what_it_needs(tmp_path):
    both = {"IMAGENET_DIR": "/photos", "WRITE_DIR": tmp_path}
    assert_user_error(write_imagenet("500", "1", **both), "MAX_RESOLUTION JPEG_RATIO JPEG_QUALITY")
    assert_user_error(write_imagenet("500", "1", "80", WRITE_DIR=tmp_path), "IMAGENET_DIR (or DATA_DIR) is not set")
    assert_user_error(write_imagenet("500", "1", "80", IMAGENET_DIR="/photos"), "WRITE_DIR is not set")
    assert_user_error(write_imagenet("500", "1", "80", **both, PYTHON="/no/python"), "/no/python", "./setup.sh")
