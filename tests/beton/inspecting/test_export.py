"""python -m beton export: the photos as files again."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from beton.errors import DamagedSample, UserError
from beton.format.card import card_path
from beton.format.file import BetonFile
from beton.inspecting.commands import main
from tests.support.betons import card_of, copied, damage, files_in, payloads, sha256, stored_photos, write_good
from tests.support.photos import make_folder


@pytest.fixture(scope="module")
def passed(photo_folder, tmp_path_factory):
    """A .beton of JPEGs that are stored as they were."""
    path = tmp_path_factory.mktemp("passed") / "a.beton"
    return write_good(path, photo_folder / "val", write_mode="jpg", passthrough=1)


def relative(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_exported_photos_are_the_files_that_were_written(passed, photo_folder, tmp_path, capsys):
    assert main(["export", str(passed), str(tmp_path / "out")]) == 0
    assert f"=> {tmp_path}/out: 41 photos in 10 class folders\n" == capsys.readouterr().out
    assert relative(tmp_path / "out") == relative(photo_folder / "val")
    for name in relative(tmp_path / "out"):
        assert (tmp_path / "out" / name).read_bytes() == (photo_folder / "val" / name).read_bytes()
    again = write_good(tmp_path / "b.beton", tmp_path / "out", write_mode="jpg", passthrough=1)
    assert sha256(again) == sha256(passed)


@pytest.mark.parametrize("card", [True, False])
def test_every_mode_is_exported_and_written_again(photo_folder, tmp_path, card):
    how = {"write_mode": "proportion", "max_resolution": 80}
    path = write_good(tmp_path / "a.beton", photo_folder / "val", **how)
    photos, stored = stored_photos(path), payloads(path)
    if not card:
        card_path(path).unlink()
    assert main(["export", str(path), str(tmp_path / "out"), "--format", "folders"]) == 0
    names = relative(tmp_path / "out")
    assert names[0] == ("blobs/val_000000.jpg" if card else "0/00.jpg")
    for name, pixels, payload in zip(names, photos, stored, strict=True):
        content = (tmp_path / "out" / name).read_bytes()
        assert content == payload if name.endswith(".jpg") else Image.open(io.BytesIO(content)).format == "PNG"
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), pixels)
    again = write_good(tmp_path / "b.beton", tmp_path / "out", passthrough=1, **how)
    assert payloads(again) == stored


def test_webdataset_is_written_again_with_its_classes(passed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("beton.inspecting.export._LARGEST_SHARD", 500_000)
    assert main(["export", str(passed), str(tmp_path / "out"), "--format=webdataset"]) == 0
    assert "41 photos in " in capsys.readouterr().out
    tars = files_in(tmp_path / "out")
    assert tars == ["000000.tar", "000001.tar", *tars[2:-1], "classes.txt"]
    again = write_good(tmp_path / "b.beton", tmp_path / "out", dataset="webdataset", write_mode="jpg", passthrough=1)
    assert sha256(again) == sha256(passed)
    assert card_of(again)["classes"] == card_of(passed)["classes"]
    with tarfile.open(tmp_path / "out" / "000000.tar") as tar:
        assert tar.getnames()[:3] == ["00.jpg", "00.cls", "01.jpg"]


def test_webdatasets_own_reader_reads_it(passed, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    main(["export", str(passed), str(tmp_path / "out"), "--format=webdataset"])
    samples = list(webdataset.WebDataset(str(tmp_path / "out" / "000000.tar"), shardshuffle=False))
    assert [sample["jpg"] for sample in samples] == payloads(passed)
    with BetonFile(passed) as file:
        assert [int(sample["cls"]) for sample in samples] == file.labels.tolist()


def test_what_cannot_be_exported_is_an_error_and_leaves_nothing(passed, photo_folder, tmp_path):
    bad = damage(copied(passed, tmp_path / "bad.beton"), [5])
    for how in ("folders", "webdataset"):
        with pytest.raises(DamagedSample, match="sample 5 of "):
            main(["export", str(bad), str(tmp_path / "out"), f"--format={how}"])
    with pytest.raises(UserError, match="exists already"):
        main(["export", str(passed), str(tmp_path)])
    with pytest.raises(UserError, match="there is no format 'zip'; give one of folders, webdataset"):
        main(["export", str(passed), str(tmp_path / "out"), "--format=zip"])
    with pytest.raises(UserError, match="'--format' needs a value"):
        main(["export", str(passed), str(tmp_path / "out"), "--format"])
    with pytest.raises(UserError, match=r"'merge' takes OUT FILE ..., not 1 words; write python -m beton merge OUT"):
        main(["merge", str(passed)])
    assert files_in(tmp_path) == ["bad.beton", "bad.beton.json"]


def test_names_that_would_be_read_in_another_order_become_numbers(tmp_path):
    make_folder(tmp_path / "photos", [(20, 30)] * 4, classes=1)
    for number, name in enumerate(("a.png", "a.jpg.png", "b.png", "c.png")):
        (tmp_path / "photos" / "class_0" / f"{number:03d}.png").rename(tmp_path / "photos" / "class_0" / name)
    path = write_good(tmp_path / "a.beton", tmp_path / "photos", write_mode="jpg")
    main(["export", str(path), str(tmp_path / "out")])
    assert relative(tmp_path / "out") == [f"class_0/{number}.jpg" for number in range(4)]
