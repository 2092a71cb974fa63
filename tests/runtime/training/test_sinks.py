"""Who gets the log too: TensorBoard, Weights & Biases; and the best weights, which the log names."""

import importlib.util
import json

import pytest

from beton.errors import UserError
from runtime.training import checkpoint, sinks
from runtime.training.checkpoint import Position
from runtime.training.run_folder import RunFolder
from tests.support.scripts import forked, options
from tests.support.training import Run, log_of

LINES = [
    {"epoch": epoch, "top_1": 0.5 * epoch, "val_loss": 2.0, "loader": "beton", "best": ["top_1"]} for epoch in (0, 1)
]


def test_an_unknown_one_and_one_that_is_not_installed_are_errors(monkeypatch):
    sinks.check("")
    with pytest.raises(UserError, match="logging.sinks=tensorbord is unknown; use tensorboard or wandb"):
        sinks.check("tensorbord")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("tensorboard", "wandb"):
        with pytest.raises(UserError, match=f"needs the package {name}; pip install {name}"):
            sinks.check(name)


def test_a_missing_package_leaves_no_folder(resnet, tmp_path):
    if importlib.util.find_spec("wandb"):
        pytest.skip("it is installed")
    run = Run(tmp_path, resnet | {"logging.sinks": "wandb"})
    assert run.end() == 2
    assert "error: logging.sinks=wandb needs the package wandb; pip install wandb" in run.errors
    assert not run.run.exists()


def logged(folder, name, lines, epoch=0):
    run = RunFolder(folder)
    run.sinks = sinks.open_all(name, folder, {"lr.lr": 0.5}, epoch)
    for line in lines:
        run.log(line)
    run.close()


def test_tensorboard_has_the_numbers_of_the_log_and_a_resumed_run_goes_on(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logged(tmp_path, "tensorboard", LINES)
    logged(tmp_path, "tensorboard", [LINES[1] | {"top_1": 0.75}], epoch=1)
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(event.step, event.value) for event in found.Scalars("top_1")] == [(0, 0.0), (1, 0.75)]
    assert set(found.Tags()["scalars"]) == {"top_1", "val_loss"}
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 3


def test_weights_and_biases_without_a_network(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logged(tmp_path, "wandb", LINES)
    first = (tmp_path / "wandb_id").read_text()
    assert list((tmp_path / "wandb").glob(f"offline-run-*/run-{first}.wandb"))
    logged(tmp_path, "wandb", LINES[1:], epoch=1)
    assert (tmp_path / "wandb_id").read_text() == first


def test_the_best_weights_are_kept_and_named_in_the_log(finished, betons, tmp_path):
    log = log_of(finished)
    best = [line for line in log if "best" in line]
    highest = [line["top_1"] for line in best]
    assert best[0] is log[0] and highest == sorted(set(highest)) and highest[-1] == max(line["top_1"] for line in log)
    small = {"data.val_dataset": betons["val"], "validation.resolution": 32, "validation.batch_size": 16}
    small |= {"training.eval_only": 1, "training.use_blurpool": 1, "training.precision": "none"}
    small |= {"data.num_workers": 1, "data.in_memory": 1, "model.weights": finished / "best_weights.pt"}
    done = forked("train_imagenet.py", *options(small | {"model.arch": "timm:test_resnet"}))
    assert done.returncode == 0, done.stderr
    assert f"top_1={highest[-1]:.6g}" in done.stdout
    assert (
        json.loads((finished / "best_weights.classes.json").read_text())
        == checkpoint.load(finished / "checkpoint.pt")["classes"]
    )


def test_a_resumed_run_knows_the_best_of_the_epochs_that_it_keeps(tmp_path):
    for top_1 in (0.3, 0.5, 0.9):
        RunFolder(tmp_path).log({"epoch": round(10 * top_1), "top_1": top_1})
    folder = RunFolder.reopen(tmp_path, Position(6), {})
    assert folder.best({"top_1": 0.5}) == []
    assert folder.best({"top_1": 0.6, "ema_top_1": 0.1}) == ["top_1", "ema_top_1"]
    assert folder.best({"top_1": 0.6, "ema_top_1": 0.2}) == ["ema_top_1"]
