"""A training run that is killed in mid-epoch and started again ends as the one that was not."""

import json
import random
import shutil
import time

import pytest
import timm
import torch
from loading import damage, task
from training import RESNET, VIT, Run, digest, log_without_times, position

from pipelines.loaders import open_loader
from pipelines.sources.generated import open_source
from pipelines.writer import WriteOptions, write
from runtime import checkpoint


@pytest.fixture(scope="module")
def resnet(betons):
    return RESNET | {"data.train_dataset": betons["train"], "data.val_dataset": betons["val"]}


@pytest.fixture(scope="module")
def finished(resnet, tmp_path_factory):
    """The folder of a run that nothing interrupted, without checkpoints in its epochs."""
    return uninterrupted(tmp_path_factory.mktemp("finished"), resnet)


def uninterrupted(folder, told, script="train_imagenet"):
    run = Run(folder, told | {"training.checkpoint_minutes": "null"}, script)
    try:
        assert run.end() == 0, run.errors
    finally:
        run.stop()
    return run.run


def kill_and_resume(folder, told, kills, most_steps, script="train_imagenet"):
    """Kill a run again and again after some steps and a part of one; returns (folder, positions it was left at).

    It goes on by itself, the last time from a checkpoint that it is told.
    """
    draws, left, step_time = random.Random(kills), [], 0.05
    while True:
        if len(left) == kills:
            told = told | {"training.resume": folder / "run" / "checkpoint.pt"}
        run = Run(folder, told, script)
        try:
            if len(left) == kills:
                assert run.end() == 0, run.errors
                return run.run, left
            run.wait_for_steps(1)
            began = time.monotonic()
            steps = draws.randint(2, most_steps)
            run.wait_for_steps(steps)
            step_time = (time.monotonic() - began) / (steps - 1)
            time.sleep(draws.uniform(0, step_time))  # a moment of the next step, or of writing the checkpoint
            assert run.process.is_alive(), "it ended before it could be killed"
        finally:
            run.stop()
        left.append(position(run.run / "checkpoint.pt"))


def assert_same(run, expected, *names):
    for name in ("final_weights.pt", *names):
        assert digest(run, name) == digest(expected, name)
    assert log_without_times(run) == log_without_times(expected)


@pytest.mark.parametrize(
    ("kills", "most_steps"), [(3, 12), pytest.param(20, 2, marks=pytest.mark.slow)], ids=["3 kills", "20 kills"]
)
def test_killed_at_random_moments(finished, resnet, tmp_path, kills, most_steps):
    run, left = kill_and_resume(tmp_path, resnet, kills, most_steps)
    assert any(batch for _, batch in left), "no kill was in mid-epoch"
    assert_same(run, finished)
    assert [line["res"] for line in log_without_times(run)] == [32, 64, 64]
    assert log_without_times(run)[0]["images"] == 120
    assert not list(run.glob(".*")), "temporary files are left"


def test_transformer_with_all_that_draws_and_gathers(tmp_path):
    for split, count in (("train", 264), ("val", 16)):
        write(open_source(None, split, seed=0, count=count), tmp_path / f"{split}.beton", WriteOptions("jpg", 40), {})
    told = VIT | {f"data.{split}_dataset": tmp_path / f"{split}.beton" for split in ("train", "val")}
    # Building the teacher draws numbers too
    torch.save(timm.create_model("test_resnet", num_classes=10).state_dict(), tmp_path / "teacher.pt")
    told |= {"distillation.mode": "hard", "distillation.teacher": "timm:test_resnet"}
    told |= {"distillation.teacher_weights": tmp_path / "teacher.pt"}
    expected = uninterrupted(tmp_path / "whole", told, "train_transformers")
    run, left = kill_and_resume(tmp_path / "killed", told, 2, 2, "train_transformers")
    assert all(batch % 2 == 0 or batch == 5 for _, batch in left), "a checkpoint in the middle of a step"
    assert_same(run, expected, "final_ema_weights.pt")


def test_standard_loader(photo_folder, resnet, tmp_path):
    told = resnet | {"data.loader": "torch", "data.num_workers": 2, "training.epochs": 1}
    told |= {f"data.{split}_dataset": photo_folder / split for split in ("train", "val")}
    expected = uninterrupted(tmp_path / "whole", told)
    run, left = kill_and_resume(tmp_path / "killed", told, 1, 8)
    assert left[0][1]
    assert_same(run, expected)


def test_a_file_larger_than_memory_with_damaged_photos(betons, resnet, tmp_path):
    path = damage(betons["train"], range(5, 120, 30), tmp_path / "train.beton")
    told = resnet | {"data.train_dataset": path, "data.in_memory": 0, "data.on_error": "skip", "training.epochs": 1}
    expected = uninterrupted(tmp_path / "whole", told)
    assert log_without_times(expected)[0]["left_out"] == 4
    run, left = kill_and_resume(tmp_path / "killed", told, 1, 8)
    assert left[0][1]
    assert_same(run, expected)


def test_same_command_line_after_the_end_changes_nothing(finished, resnet, tmp_path):
    before, log = digest(finished), (finished / "log.jsonl").read_text()
    again = Run(finished.parent, resnet)
    assert again.end() == 0, again.errors
    assert again.steps == 0
    assert (digest(finished), (finished / "log.jsonl").read_text()) == (before, log)


def test_killed_before_the_final_weights(copy, finished, resnet):
    (copy / "final_weights.pt").unlink()
    again = Run(copy.parent, resnet)
    assert again.end() == 0, again.errors
    assert again.steps == 0
    assert_same(copy, finished)


@pytest.mark.parametrize(("loader", "data"), [("ffcv", "beton"), ("torch", "folder"), ("cached", "beton")])
def test_an_epoch_begins_at_any_batch(numbered, loader, data):
    given = {"batch_size": 4, "stages": "rrc(24)|flip|normalize", "epoch": 3, "seed": 5, "repeats": 1}
    whole = open_loader(loader, task(numbered[data], **given))
    batches, following = list(whole), list(whole)
    part = open_loader(loader, task(numbered[data], start=7, **given))
    for expected in (batches[7:], following):
        got = list(part)
        assert len(got) == len(expected) > 0
        for (images, labels), (same_images, same_labels) in zip(got, expected, strict=True):
            assert torch.equal(images, same_images)
            assert torch.equal(labels, same_labels)
    # The label of a photo is its number
    for batch, (_, labels) in enumerate(batches):
        assert whole.samples(3, batch).tolist() == labels.tolist()
    assert len(part) == len(whole)
    part.close()
    whole.close()


def test_what_came_before_is_not_read(numbered, monkeypatch):
    loader = open_loader("ffcv", task(numbered["beton"], batch_size=4, start=9))
    read, cut = [], loader._photos.cut

    def noted(scratch, samples, *more):
        read.extend(samples)
        cut(scratch, samples, *more)

    monkeypatch.setattr(loader._photos, "cut", noted)
    assert len(list(loader)) == 2
    assert len(read) == 8


@pytest.fixture
def copy(finished, tmp_path):
    """A run of three epochs that can be spoiled."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def test_damaged_checkpoint_is_refused_by_name_and_the_one_before_used(copy, finished, resnet):
    """The one before is of the end of the second epoch."""
    content = bytearray((copy / "checkpoint.pt").read_bytes())
    content[len(content) // 2] ^= 4
    (copy / "checkpoint.pt").write_bytes(content)
    again = Run(copy.parent, resnet | {"training.checkpoint_minutes": "null"})
    assert again.end() == 0, again.errors
    assert f"{copy / 'checkpoint.pt'} is damaged" in again.output
    assert "using checkpoint.old.pt" in again.output
    assert again.steps == 15
    assert (copy / "checkpoint.refused.pt").read_bytes() == content
    assert position(copy / "checkpoint.old.pt") == (2, 0), "the damaged one became the one before"
    assert_same(copy, finished)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model.arch": "timm:test_byobnet"}, ["checkpoint.pt", "checkpoint.old.pt", "model.arch"]),
        ({"training.batch_size": 12}, ["checkpoint.pt was made with training.batch_size=8, not 12"]),
        ({"training.weight_decay": 0.5}, ["checkpoint.pt was made with training.weight_decay=", "not 0.5"]),
        ({"logging.name": "null"}, ["logging.name"]),
        ({"training.resume": "nowhere", "logging.name": "other"}, ["nowhere"]),
    ],
)
def test_what_cannot_be_resumed_is_one_line(copy, resnet, change, words):
    """A setting that does not fit is no reason to use the checkpoint before it, which is of an epoch's end."""
    checkpoint.save(checkpoint.load(copy / "checkpoint.pt") | {"batch": 3}, copy / "checkpoint.pt")
    before = (copy / "checkpoint.pt").read_bytes()
    run = Run(copy.parent, resnet | change)
    assert run.end() == 2
    lines = run.errors.splitlines()
    assert len(lines) == 1
    assert all(word in lines[0] for word in ("error: ", *words)), lines
    assert (copy / "checkpoint.pt").read_bytes() == before


def test_other_settings_are_told_and_noted(copy, resnet):
    """Going on for one more epoch, with another learning rate."""
    change = {"training.epochs": 4, "lr.lr": 0.01, "data.num_workers": 2}
    run = Run(copy.parent, resnet | change)
    assert run.end() == 0, run.errors
    assert run.steps == 15
    assert f"=> {copy / 'checkpoint.pt'} was made with training.epochs=3, now it is 4" in run.output
    noted = json.loads((copy / "params.json").read_text())
    changed = {"training.epochs": [3, 4], "lr.lr": [0.05, 0.01]}
    assert noted["resumed"] == [{"epoch": 3, "batch": 0, "changed": changed}]
    assert noted["params"]["training.epochs"] == 3


def test_auto_starts_anew_where_there_is_no_checkpoint_and_never_over_finished_weights(copy, finished, resnet):
    for path in copy.glob("checkpoint*"):
        path.unlink()
    run = Run(copy.parent, resnet)
    assert run.end() == 2
    assert "final weights" in run.errors
    (copy / "final_weights.pt").unlink()
    run = Run(copy.parent, resnet)
    assert run.end() == 0, run.errors
    assert "starting anew" in run.output
    assert_same(copy, finished)
