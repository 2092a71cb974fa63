"""write_imagenet.sh: upstream's command line for the writer."""

import os
import subprocess
import sys

import pytest

from beton.format.card import card_path, read_card
from tests.support import forms
from tests.support.betons import files_in, sha256, write_good
from tests.support.scripts import ROOT, assert_user_error


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
    card = read_card(card_path(betons / names[1]))
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


def test_write_imagenet_notices_in_which_form_the_photos_are(tmp_path, recorder):
    env = {"WRITE_DIR": tmp_path / "out", "PYTHON": recorder, "FAIL": "nothing"}
    for number, (files, train, val) in enumerate(
        [
            (["train/n01/a.JPEG", "val/n01/b.JPEG"], ("imagenet", "/train"), ("imagenet", "/val")),
            (["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"], ("imagenet_tars", ""), ("imagenet_tars", "")),
            (["ILSVRC2012_img_train.tar", "val/n01/b.JPEG"], ("imagenet_tars", ""), ("imagenet", "/val")),
            (["train/n01.tar", "val/n01/b.JPEG"], ("imagenet_tars", "/train"), ("imagenet", "/val")),
            (["data/train-0.parquet", "data/validation-0.parquet"], ("huggingface", ""), ("huggingface", "")),
            ([], ("imagenet", "/train"), ("imagenet", "/val")),
        ]
    ):
        photos = tmp_path / f"image net {number}"
        photos.mkdir()
        for name in files:
            (photos / name).parent.mkdir(parents=True, exist_ok=True)
            (photos / name).touch()
        assert write_imagenet("500", "1", "80", IMAGENET_DIR=photos, **env).returncode == 0
        for call, split, (source, folder) in zip(calls(recorder)[-2:], ("train", "val"), (train, val), strict=True):
            assert f" --cfg.dataset={source} --cfg.split={split} --cfg.data_dir={photos}{folder} " in call


def test_write_imagenet_reads_the_archives(photo_folder, tmp_path):
    pytest.importorskip("scipy")
    forms.imagenet_val(photo_folder / "val", forms.imagenet_train(photo_folder / "train", tmp_path))
    done = write_imagenet("64", "0.50", "90", IMAGENET_DIR=tmp_path, WRITE_DIR=tmp_path)
    assert done.returncode == 0, done.stderr
    for split in ("train", "val"):
        given = {"write_mode": "proportion", "compress_probability": 0.5, "max_resolution": 64}
        expected = write_good(tmp_path / "a.beton", photo_folder / split, split=split, **given)
        assert sha256(tmp_path / f"{split}_64_0.50_90.beton") == sha256(expected)


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
