"""A training run that is killed in mid-epoch and started again ends as the one that was not."""

import json
import random
import shutil
import time

import pytest
import timm
import torch

from beton.inspecting.merge import split as split_beton
from runtime.training import checkpoint
from tests.support.betons import copied, damage, write_classed
from tests.support.training import VIT, Run, digest, log_of, log_without_times, position


def kill_and_resume(folder, settings, kills, most_steps, script="train_imagenet.py"):
    """Kill a run again and again after some steps and a part of one; returns (folder, positions it was left at).

    It goes on by itself, the last time from a checkpoint that it is given.
    """
    draws, left, step_time = random.Random(kills), [], 0.05
    while True:
        if len(left) == kills:
            settings = settings | {"training.resume": folder / "run" / "checkpoint.pt"}
        run = Run(folder, settings, script)
        try:
            if len(left) == kills:
                assert run.end() == 0, run.errors
                return run.run, left
            run.wait_for_steps(1)
            began = time.monotonic()
            steps = 1 + draws.randint(2, most_steps)  # the first checkpoint is written beside the second step
            run.wait_for_steps(steps)
            step_time = (time.monotonic() - began) / (steps - 1)
            time.sleep(draws.uniform(0, step_time))  # a moment of the next step, or of writing the checkpoint
            assert run.is_running, "it ended before it could be killed"
        finally:
            run.stop()
        left.append(position(run.run / "checkpoint.pt"))


def assert_same(run, expected, *names):
    for name in ("final_weights.pt", *names):
        assert digest(run, name) == digest(expected, name)
    assert log_without_times(run) == log_without_times(expected)


@pytest.mark.parametrize(
    ("kills", "most_steps"), [(3, 12), pytest.param(12, 2, marks=pytest.mark.slow)], ids=["3 kills", "12 kills"]
)
def test_killed_at_random_moments(finished, resnet, tmp_path, kills, most_steps):
    run, left = kill_and_resume(tmp_path, resnet, kills, most_steps)
    assert any(batch for _, batch in left), "no kill was in mid-epoch"
    assert_same(run, finished)
    assert [line["res"] for line in log_without_times(run)] == [32, 64, 64]
    assert log_without_times(run)[0]["images"] == 120
    assert not list(run.glob(".*")), "temporary files are left"


def test_the_parts_of_a_file_train_as_it_does_and_resume(finished, resnet, betons, tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        split_beton(str(betons[split]), count, str(tmp_path))
        resnet = resnet | {f"data.{split}_dataset": f"{tmp_path}/{split}-*-of-{count}.beton"}
    run, _ = kill_and_resume(tmp_path, resnet, 1, 12)
    assert_same(run, finished)


def test_transformer_with_all_that_draws_and_gathers(uninterrupted, tmp_path):
    small = write_classed(tmp_path, 40, train=264, val=16)
    settings = VIT | {f"data.{split}_dataset": path for split, path in small.items()}
    # Building the teacher draws numbers too
    torch.save(timm.create_model("test_resnet", num_classes=10).state_dict(), tmp_path / "teacher.pt")
    settings |= {"distillation.mode": "hard", "distillation.teacher": "timm:test_resnet"}
    settings |= {"distillation.teacher_weights": tmp_path / "teacher.pt"}
    expected = uninterrupted(tmp_path / "whole", settings, "train_transformers.py")
    run, left = kill_and_resume(tmp_path / "killed", settings, 2, 2, "train_transformers.py")
    assert all(batch % 2 == 0 or batch == 5 for _, batch in left), "a checkpoint in the middle of a step"
    assert_same(run, expected, "final_ema_weights.pt")


def test_standard_loader(uninterrupted, photo_folder, resnet, tmp_path):
    settings = resnet | {"data.loader": "torch", "data.num_workers": 2, "training.epochs": 1}
    settings |= {f"data.{split}_dataset": photo_folder / split for split in ("train", "val")}
    expected = uninterrupted(tmp_path / "whole", settings)
    run, left = kill_and_resume(tmp_path / "killed", settings, 1, 8)
    assert left[0][1]
    assert_same(run, expected)


def test_a_file_larger_than_memory_with_damaged_photos(uninterrupted, betons, resnet, tmp_path):
    path = damage(copied(betons["train"], tmp_path / "train.beton"), range(5, 120, 30))
    settings = resnet | {"data.train_dataset": path, "data.in_memory": 0, "data.on_error": "skip", "training.epochs": 1}
    expected = uninterrupted(tmp_path / "whole", settings)
    assert log_without_times(expected)[0]["left_out"] == 4
    run, left = kill_and_resume(tmp_path / "killed", settings, 1, 8)
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


def make_old(run, loader):
    """A run folder as it was before our loader's name was 'beton': a checkpoint of version 2 in a folder of version 1.

    The checkpoint is the one of the end of the second epoch.
    """
    content = checkpoint.load(run / "checkpoint.old.pt")
    (run / "checkpoint.old.pt").unlink()
    (run / "final_weights.pt").unlink()
    params = content["params"] | {"data.loader": loader}
    checkpoint.save(content | {"version": 2, "params": params}, run / "checkpoint.pt")
    noted = json.loads((run / "params.json").read_text())
    del noted["format"]
    noted["params"]["data.loader"] = loader
    (run / "params.json").write_text(json.dumps(noted))
    lines = [line | {"loader": loader} for line in log_of(run)]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_run_of_the_loader_that_was_named_ffcv_is_resumed_with_beton(copy, finished, resnet):
    make_old(copy, "ffcv")
    run = Run(copy.parent, resnet | {"training.checkpoint_minutes": "null"})
    assert run.end() == 0, run.errors
    assert run.steps == 15
    assert "was made with data.loader" not in run.output
    assert_same(copy, finished)  # the loader in every line of the log too
    noted = json.loads((copy / "params.json").read_text())
    assert noted == json.loads((finished / "params.json").read_text()) | {"origin": noted["origin"]}
    assert checkpoint.load(copy / "checkpoint.pt")["params"]["data.loader"] == "beton"


@pytest.mark.parametrize(("then", "now", "other"), [("ffcv", "beton", "ffcv"), ("ffcv_stock", "ffcv", "beton")])
def test_in_mid_epoch_a_loader_of_version_2_is_known_by_its_present_name(copy, resnet, then, now, other):
    make_old(copy, then)
    old = torch.load(copy / "checkpoint.pt", weights_only=True)
    checkpoint.save(old | {"batch": 3}, copy / "checkpoint.pt")
    run = Run(copy.parent, resnet | {"data.loader": other})
    assert run.end() == 2
    assert f"checkpoint.pt was made with data.loader={now}, not {other}; give data.loader={now}" in run.errors


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model.arch": "timm:test_byobnet"}, ["checkpoint.pt", "checkpoint.old.pt", "model.arch"]),
        ({"training.batch_size": 12}, ["checkpoint.pt was made with training.batch_size=8, not 12"]),
        ({"training.weight_decay": 0.5}, ["checkpoint.pt was made with training.weight_decay=", "not 0.5"]),
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


def test_other_settings_are_reported_and_noted(copy, resnet):
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


def test_auto_without_a_checkpoint_starts_from_the_beginning_but_never_over_finished_weights(copy, finished, resnet):
    for path in copy.glob("checkpoint*"):
        path.unlink()
    run = Run(copy.parent, resnet)
    assert run.end() == 2
    assert "final weights" in run.errors
    (copy / "final_weights.pt").unlink()
    run = Run(copy.parent, resnet)
    assert run.end() == 0, run.errors
    assert "starting from the beginning" in run.output
    assert_same(copy, finished)
