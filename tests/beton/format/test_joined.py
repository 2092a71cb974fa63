"""Several betons as one: written in parts, loaded, checked, merged and split."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import beton
from beton.errors import DamagedSample, UserError
from beton.format.card import card_path
from beton.format.joined import open_beton
from beton.format.parts import part_path, paths_of
from beton.inspecting.commands import main
from beton.sources.subset import Part
from tests.support.betons import (
    card_of,
    copied,
    damage,
    files_in,
    flip_bits,
    payloads,
    sha256,
    write_beton,
    write_cli,
    write_good,
)
from tests.support.photos import draw_photos
from tests.support.scripts import Forked, assert_user_error, run_main, run_script

HOW = {"write_mode": "proportion", "rest": "blocks", "max_resolution": 60, "seed": 2}
STAGES = "rrc(24)|flip|normalize"


@pytest.fixture(scope="module")
def whole(numbered, tmp_path_factory):
    """45 photos whose label is their number, in one file."""
    return write_good(tmp_path_factory.mktemp("whole") / "train.beton", numbered["folder"], **HOW)


@pytest.fixture(scope="module")
def parts(numbered, tmp_path_factory):
    """The pattern of 8 parts, each written by a process of its own, two at a time; one is resumed."""
    folder = tmp_path_factory.mktemp("parts")
    command = {"split": "train", "write_path": folder / "train.beton", "data_dir": numbered["folder"], **HOW}
    words = [f"--cfg.{name}={value}" for name, value in {**command, "num_workers": 1}.items()]
    processes = [
        Forked(folder / f"log{n}", run_main, "write_dataset.py", [*words, f"--cfg.part={n}/8"]) for n in range(1, 9)
    ]
    assert [process.end() for process in processes] == [0] * 8, [process.errors for process in processes]
    return f"{folder}/train-*-of-8.beton"


def batches(path, **more):
    with beton.Loader(path, 7, image=STAGES, workers=2, seed=4, **more) as loader:
        return [tuple(batch) for epoch in range(2) for batch in loader.batches(epoch)]


def same(one, other):
    """Whether two lists of batches are equal."""
    assert len(one) == len(other)
    pairs = [pair for batch in zip(one, other, strict=True) for pair in zip(*batch, strict=True)]
    return all(torch.equal(*pair) for pair in pairs)


def test_parts_loaded_as_one_give_the_batches_of_the_single_file(parts, whole):
    expected = batches(whole)
    assert same(batches(parts), expected)
    assert same(batches(list(reversed(paths_of(parts)))), expected)  # in whatever order they are given
    assert same(batches(parts, verify=True, rank=1, world_size=2), batches(whole, rank=1, world_size=2))
    labels = torch.cat([labels for _, labels in batches(parts, in_memory=False)])
    assert labels.sort().values.tolist() == sorted(list(range(45)) * 2)


def test_parts_are_one_file_to_look_into(parts, whole):
    with open_beton(parts) as file, beton.open(whole) as single:
        assert [len(part) for part in file.parts] == [5, 6, 5, 6, 6, 5, 6, 6]
        assert (len(file), file.fields, file.classes, file.names) == (45, single.fields, single.classes, single.names)
        np.testing.assert_array_equal(file.checksums, single.checksums)
        np.testing.assert_array_equal(file.labels, single.labels)
        for i in (0, 4, 5, 44, -1):
            np.testing.assert_array_equal(file[i].image, single[i].image)
            assert file.describe(i % 45) == single.describe(i % 45)
        for key in ("samples_per_class", "samples_per_mode", "bytes_per_mode", "classes"):
            assert file.card[key] == single.card[key]


def test_parts_are_opened_again_in_another_process(parts, monkeypatch, tmp_path):
    monkeypatch.chdir(os.path.dirname(parts))
    for paths in ("train-*-of-8.beton", paths_of("train-*-of-8.beton")):
        with open_beton(paths) as file:
            text = pickle.dumps(file)
        with monkeypatch.context() as other:
            other.chdir(tmp_path)
            with pickle.loads(text) as again:
                assert len(again) == 45


def test_merged_parts_are_the_single_file(parts, whole, tmp_path):
    assert main(["merge", str(tmp_path / "a.beton"), parts]) == 0
    assert sha256(tmp_path / "a.beton") == sha256(whole)
    once, again = card_of(whole), card_of(tmp_path / "a.beton")
    assert "part" not in again
    for key in set(once) - {"identity", "seconds", "parameters"}:
        assert again[key] == once[key], key
    assert again["parameters"].items() >= HOW.items()
    with pytest.raises(UserError, match="a.beton exists already"):
        main(["merge", str(tmp_path / "a.beton"), parts])


def test_split_parts_are_those_that_were_written(parts, whole, tmp_path):
    copied(whole, tmp_path / "train.beton")
    assert main(["split", str(tmp_path / "train.beton"), "8"]) == 0
    for number, path in enumerate(paths_of(parts), 1):
        mine = part_path(tmp_path / "train.beton", f"{number}/8")
        assert sha256(mine) == sha256(Path(path))
        assert card_of(mine)["part"] == card_of(path)["part"]
    with pytest.raises(UserError, match="train-1-of-8.beton exists already"):
        main(["split", str(tmp_path / "train.beton"), "8"])
    with pytest.raises(UserError, match="'1' is not a number of parts"):
        main(["split", str(tmp_path / "train.beton"), "1"])


def test_commands_read_parts_as_one(parts, whole, numbered, tmp_path, capsys):
    assert main(["check", parts]) == 0
    assert main(["info", parts]) == 0
    assert main(["compare", parts, str(numbered["folder"])]) == 0
    out = capsys.readouterr().out
    assert "all 45 samples are good" in out and "45 samples in 8 files" in out and "no difference" in out
    assert "45 photos encoded again and compared byte by byte" in out
    for path in (parts, whole):
        assert main(["export", str(path), str(tmp_path / f"out{len(files_in(tmp_path))}")]) == 0
    one, other = (sorted(path.rglob("*.*")) for path in (tmp_path / "out0", tmp_path / "out1"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


@given(st.integers(1, 60), st.integers(1, 60))
def test_parts_have_every_sample_once(count, of):
    parts = [Part(range(count), number, of) for number in range(1, of + 1)]
    assert [part.start + i for part in parts for i in range(len(part))] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@settings(max_examples=8)
@given(cuts=st.lists(st.integers(1, 11), max_size=4, unique=True))
def test_any_files_are_loaded_as_one(cuts, tmp_path_factory):
    """Files that were written apart, of other modes and sizes: their samples one after the other."""
    folder, photos, paths = tmp_path_factory.mktemp("any"), draw_photos(12, 20, 40), []
    edges = [0, *sorted(cuts), 12]
    for number, (start, stop) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        mode = ("raw", "jpg", "blocks")[number % 3]
        paths.append(write_beton(folder / f"{number}.beton", photos[start:stop], mode))
        card_path(paths[-1]).unlink()  # whose classes differ
    with open_beton(paths) as file, beton.Loader(paths, 12, image="center(16)", shuffle=False) as loader:
        images = next(iter(loader)).image
        singles = [
            image
            for path in paths
            for image in next(iter(beton.Loader(path, 12, image="center(16)", shuffle=False))).image
        ]
        assert torch.equal(images, torch.stack(singles))
        assert (file.card, file.checksums, len(file)) == (None, None, 12)


def refused(files, words):
    for opened in (lambda: open_beton(files), lambda: beton.Loader(files, 4, image=STAGES)):
        with pytest.raises(UserError, match=words):
            opened()


def test_a_missing_or_foreign_part_is_an_error_by_name(parts, whole, numbered, betons, tmp_path):
    paths = paths_of(parts)
    refused([*paths[:3], *paths[4:]], "of the 8 parts of .*, 4 is missing; write it .`part`='4/8'.")
    refused(paths[3:5], "1, 2, 3, 6, 7, 8 are missing")
    refused([*paths, whole], f"{whole} is not of the same write as .*train-1-of-8.*does not say that it is a part")
    refused([*paths, paths[2]], "train-3-of-8.beton is given twice")
    other = write_good(tmp_path / "a.beton", numbered["folder"], **{**HOW, "jpeg_quality": 50})
    main(["split", str(other), "8"])
    foreign = str(tmp_path / "a-3-of-8.beton")
    refused(
        [*paths[:2], foreign, *paths[3:]], "a-3-of-8.beton is not of the same write .*jpeg_quality=50 instead of 90"
    )
    refused([*paths, os.path.relpath(paths[0])], "are both part 1 of 8")
    refused([whole, str(betons["val"])], "have different classes")
    refused(str(tmp_path / "none-*.beton"), "there is no file .*none-")
    refused([], "no .beton is given")
    refused([str(whole), "a,b.beton"], "has a comma")


def test_damage_is_named_with_its_file(parts, tmp_path):
    paths = [str(copied(path, tmp_path / os.path.basename(path))) for path in paths_of(parts)]
    damage(paths[2], [1], flip_bits)  # sample 5 + 6 + 1
    pattern = f"{tmp_path}/train-*.beton"
    with beton.Loader(pattern, 9, image=STAGES, verify=True) as loader, pytest.raises(DamagedSample) as found:
        list(loader)
    assert found.value.sample == 12
    assert f"its checksum differs; it is sample 1 of {paths[2]}" in str(found.value)
    with beton.Loader(pattern, 9, image=STAGES, verify=True, on_error="skip") as loader:
        assert sum(len(batch.label) for batch in loader) == 44
        assert list(loader.left_out) == [12]
    assert main(["check", pattern]) == 1


def test_a_part_that_is_truncated_in_use_is_an_error_and_no_signal(parts, tmp_path):
    paths = [copied(path, tmp_path / os.path.basename(path)) for path in paths_of(parts)]
    code = """
import beton
loader = beton.Loader(sys.argv[1], 1, image="center(24)", shuffle=False, workers=1)
open(sys.argv[2], "r+b").truncate(100)
try:
    list(loader)
except beton.UserError as error:
    print(error)
"""
    done = run_script("-c", "import sys\n" + code, f"{tmp_path}/train-*.beton", paths[5], timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "was truncated while it was in use" in done.stdout


def test_parts_of_other_options(numbered, tmp_path):
    """A draw, and samples that are left out: the parts hold what the single file does."""
    how = {**HOW, "random_subset": 20}
    single = write_good(tmp_path / "single.beton", numbered["folder"], **how)
    for number in (1, 2, 3):
        write_good(tmp_path / "a.beton", numbered["folder"], **how, part=f"{number}/3")
    main(["merge", str(tmp_path / "merged.beton"), f"{tmp_path}/a-*-of-3.beton"])
    assert payloads(tmp_path / "merged.beton") == payloads(single)


def slurm_array(**values):
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("env", "part"),
    [
        ({"RANK": "2", "WORLD_SIZE": "9"}, "3-of-9"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "9"}, "1-of-9"),
        (slurm_array(ID=8, MIN=0, MAX=16, COUNT=9), "5-of-9"),
    ],
)
def test_the_part_is_that_of_a_launcher(numbered, tmp_path, monkeypatch, env, part):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    done = write_cli(tmp_path / "a.beton", numbered["folder"], part="auto")
    assert done.returncode == 0, done.stderr
    assert files_in(tmp_path) == [f"a-{part}.beton", f"a-{part}.beton.json"]


def test_wrong_parts_are_errors_of_one_line(numbered, tmp_path, monkeypatch):
    assert_user_error(write_cli("/", numbered["folder"], part="1/2"), "/ is a folder")
    for part in ("0/8", "9/8", "8", "a/b", "1/-2"):
        assert_user_error(write_cli(tmp_path / "a.beton", numbered["folder"], part=part), f"cfg.part={part} is not")
    assert_user_error(write_cli(tmp_path / "a.beton", numbered["folder"], part="46/46"), "45 samples are too few")
    assert_user_error(write_cli(tmp_path / "a.beton", numbered["folder"], part="auto"), "cfg.part=3/8")
    for name, value in slurm_array(ID=3, MIN=1, MAX=8, COUNT=3).items():
        monkeypatch.setenv(name, value)
    assert_user_error(write_cli(tmp_path / "a.beton", numbered["folder"], part="auto"), "even steps", "--array=1-3")
    assert files_in(tmp_path) == []
