import io
import json

import numpy as np
import pytest
from PIL import Image

from beton.errors import UserError
from beton.sources import generated


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def run(*arguments):
    return generated.main([str(argument) for argument in arguments])


def test_a_photo_is_a_function_of_seed_split_and_index():
    train = generated.open_source(None, "train", seed=3)
    again = generated.open_source("ignored", "train", seed=3, count=20)
    first = [train.read(i) for i in (7, 0, 11)]
    assert first == [again.read(i) for i in (7, 0, 11)]
    others = [generated.open_source(None, "val", seed=3), generated.open_source(None, "train", seed=4)]
    assert len({first[1], first[0], *(other.read(0) for other in others)}) == 4


def test_source_contract():
    source = generated.open_source(None, "val")
    assert (len(source), len(generated.open_source(None, "train"))) == (400, 2000)
    assert source.classes == sorted(source.classes)  # as an image folder numbers them
    assert np.bincount([source.label(i) for i in range(len(source))]).tolist() == [40] * 10
    assert len({source.name(i) for i in range(len(source))}) == len(source)
    with pytest.raises(IndexError):
        source.read(400)


@pytest.mark.parametrize("wrong", [{"split": "test"}, {"count": 0}, {"seed": -1}])
def test_wrong_parameters_are_user_errors(wrong):
    with pytest.raises(UserError):
        generated.open_source(None, **{"split": "train", **wrong})


def test_folder_does_not_depend_on_the_number_of_workers(tmp_path):
    for workers in (1, 2):
        assert run(tmp_path / str(workers), "--train", 24, "--val", 11, "--workers", workers) == 0
    one = contents(tmp_path / "1")
    assert one == contents(tmp_path / "2")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "2"]  # nothing temporary is left
    source = generated.open_source(None, "val", count=11)
    assert one[f"val/{source.name(10)}"] == source.read(10)[0]
    assert len(one) == 24 + 11 + 1
    assert json.loads(one[".generated.json"])["train"] == 24


def test_second_run_does_nothing(tmp_path, capsys):
    command = (tmp_path / "photos", "--train", 10, "--val", 10)
    assert run(*command) == 0
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    capsys.readouterr()
    assert run(*command) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert stamps == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert run(*command, "--seed", 1) == 2  # other photos are never overwritten
    assert stamps == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}


def one_error_line(capsys):
    printed = capsys.readouterr()
    return printed.err.startswith("error: ") and "; " in printed.err and printed.err.count("\n") == 1


@pytest.mark.parametrize("held", [None, "", "[", "{}"])
def test_foreign_folder_is_refused(tmp_path, capsys, held):
    if held is not None:
        (tmp_path / ".generated.json").write_text(held)
    (tmp_path / "thesis.txt").write_text("mine")
    before = contents(tmp_path)
    assert run(tmp_path, "--train", 10, "--val", 10) == 2
    assert one_error_line(capsys)
    assert contents(tmp_path) == before


def test_failure_leaves_nothing_behind(tmp_path, capsys, monkeypatch):
    def full_disk(self, i):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(generated.Generated, "read", full_disk)
    assert run(tmp_path / "photos", "--train", 10, "--val", 10) == 2
    assert "error: cannot write ([Errno 28] No space left on device); " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_photos_have_the_shape_of_imagenet():
    source = generated.open_source(None, "train", seed=1)
    files = [source.read(i)[0] for i in range(60)]
    pixels = []
    for file in files:
        photo = Image.open(io.BytesIO(file))
        assert (photo.format, photo.mode) == ("JPEG", "RGB")
        assert photo.layer[0][1:3] == (2, 2)  # luma sampled twice as finely as
        assert [layer[1:3] for layer in photo.layer[1:]] == [(1, 1), (1, 1)]  # chroma: 4:2:0
        photo.load()
        pixels.append(photo.width * photo.height)
        assert 100 <= min(photo.size) <= max(photo.size) <= generated.LONGEST_SIDE
    assert 0.15e6 < np.mean(pixels) < 0.25e6
    assert 3.5 < 8 * sum(map(len, files)) / sum(pixels) < 5
