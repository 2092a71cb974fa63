"""What lies in the photo folders of real people: hidden files, empty classes, other files, no classes."""

import pytest
from PIL import Image

from beton.errors import UserError
from beton.sources import open_source
from tests.support.betons import write_cli
from tests.support.photos import draw
from tests.support.scripts import assert_user_error


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw(0, 20, 30)).save(path)


@pytest.fixture
def folder(tmp_path):
    for name in ("cat/1.png", "cat/2.png", "dog/deep/1.png"):
        save(tmp_path / name)
    return tmp_path


def test_hidden_files_and_folders_are_ignored(folder):
    save(folder / ".ipynb_checkpoints" / "1.png")
    save(folder / "dog" / ".thumbnails" / "1.png")
    for name in ("cat/._1.png", "dog/.hidden.png"):
        (folder / name).write_bytes(b"no photo")
    source = open_source("imagefolder", str(folder), "train")
    assert source.classes == ["cat", "dog"]
    assert [source.stored_name(i) for i in range(len(source))] == ["cat/1.png", "cat/2.png", "dog/deep/1.png"]


def test_a_class_without_photos_is_an_error_that_names_it_or_kept(folder):
    (folder / "bird").mkdir()
    assert_user_error(write_cli(folder / "a.beton", folder), "bird", "cfg.empty_classes=keep")
    source = open_source("imagefolder", str(folder), "train", empty_classes="keep")
    assert source.classes == ["bird", "cat", "dog"]
    assert [source.label(i) for i in range(len(source))] == [1, 1, 2]


def test_files_that_are_no_photos_are_counted_by_ending(folder):
    for name in ("cat/notes.txt", "cat/a.GIF", "dog/b.gif", "dog/deep/README"):
        (folder / name).write_bytes(b"")
    done = write_cli(folder / "a.beton", folder)
    assert done.returncode == 0
    assert "passed over" in done.stdout
    assert "2 .gif" in done.stdout
    assert "1 .txt" in done.stdout
    assert "1 without ending" in done.stdout


def test_a_flat_folder_and_one_of_splits_are_told_apart(tmp_path):
    save(tmp_path / "flat" / "1.png")
    with pytest.raises(UserError, match="has photos but no class folders"):
        open_source("imagefolder", str(tmp_path / "flat"), "train")
    save(tmp_path / "both" / "train" / "cat" / "1.png")
    save(tmp_path / "both" / "val" / "cat" / "1.png")
    with pytest.raises(UserError, match="holds train and val, not classes; give .*both/train"):
        open_source("imagefolder", str(tmp_path / "both"), "train")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match="has no class folders"):
        open_source("imagefolder", str(tmp_path / "nothing"), "train")
    with pytest.raises(UserError, match="is a file, not a folder"):
        open_source("imagefolder", str(tmp_path / "flat" / "1.png"), "train")
