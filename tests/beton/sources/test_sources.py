import hashlib
import pickle

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10, ImageFolder

from beton.errors import UserError
from beton.format.file import BetonFile
from beton.format.photo_files import to_rgb
from beton.sources import SOURCES, generated, open_source
from tests.support.betons import files_in, stored_photos, write_cli, write_good
from tests.support.photos import draw
from tests.support.scripts import assert_user_error


def stored_labels(path):
    with BetonFile(path) as file:
        return file.labels.tolist()


def card(path):
    with BetonFile(path) as file:
        return file.card


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
    assert source.read(0) == ((tmp_path / "B" / "x.jpg").read_bytes(), 0)


def test_photos_may_lie_deeper_than_their_class_folder(tmp_path):
    for i in range(6):
        save(tmp_path / "train" / f"n0144353{i % 2}" / "images" / f"n0144353{i % 2}_{i}.JPEG", i)
    path = write_good(tmp_path / "a.beton", tmp_path / "train", dataset="imagenet")
    assert card(path)["classes"] == ["n01443530", "n01443531"]
    assert stored_labels(path) == [0] * 3 + [1] * 3


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
    assert_user_error(write_cli(path, tmp_path / "flat"), f"{tmp_path}/flat has photos but no class folders")
    assert_user_error(write_cli(path, tmp_path / "no_photos"), "has no photos in its class folders")
    assert_user_error(write_cli(path, tmp_path / "none"), f"there is no folder {tmp_path}/none")
    assert_user_error(write_cli(path, tmp_path / "flat" / "a.png"), "is a file, not a folder")
    assert_user_error(write_cli(path), "cfg.data_dir")


def test_class_without_photos_keeps_its_number(tmp_path):
    save(tmp_path / "photos" / "c" / "a.png")
    for name in "ab":
        (tmp_path / "photos" / name).mkdir()
    path = write_good(tmp_path / "a.beton", tmp_path / "photos", empty_classes="keep")
    assert stored_labels(path) == [2]
    assert card(path)["samples_per_class"] == {"a": 0, "b": 0, "c": 1}


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
    assert stored_labels(path) == labels[part]
    assert card(path)["classes"] == [f"thing {i}" for i in range(10)]


def test_incomplete_cifar_is_one_line_and_nothing_is_downloaded(cifar, tmp_path):
    (cifar[0] / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"damaged")
    for folder in (cifar[0], tmp_path / "none"):
        done = write_cli(tmp_path / "a.beton", folder, dataset="cifar")
        assert_user_error(done, f"{folder} has no complete cifar-10-batches-py")
    assert files_in(tmp_path) == ["data"]


def test_generated_source_needs_no_folder(tmp_path):
    path = write_good(tmp_path / "a.beton", dataset="generated", subset=12, write_mode="raw")
    source = generated.open_source(None, "train", count=12)
    assert stored_labels(path) == [source.label(i) for i in range(12)] == [*range(10), 0, 1]
    np.testing.assert_array_equal(stored_photos(path)[11], np.asarray(to_rgb(source.read(11)[0])))
    assert card(path)["source"] == {"name": "generated", "data_dir": None, "split": "train"}


def test_unknown_source_is_answered_with_the_known_ones():
    known = ["beton", "cifar", "generated", "huggingface", "imagefolder", "imagenet", "imagenet_tars", "table"]
    assert SOURCES.names() == [*known, "torchvision", "webdataset", "zip"]
    with pytest.raises(UserError, match="did you mean 'cifar'.*use one of beton, cifar.* defines SOURCE"):
        open_source("cfar", None, "train")
    with pytest.raises(UserError, match="^unknown source 'os'; use one of beton, cifar"):
        open_source("os", None, "train")
