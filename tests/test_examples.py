"""docs/examples: others' trainers on betons that are interrupted in mid-epoch see what uninterrupted ones see."""

import importlib.util
import os
import runpy
import sys
from operator import attrgetter

import pytest

import beton
from tests.support.scripts import ROOT

BATCHES = 5  # of 8 samples, of 45
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))
SMALL = {"size": 32, "batch_size": 8, "epochs": 2, "every": 1}


class Interrupted(Exception):
    """What an interruption raises where the next batch is asked for."""


@pytest.fixture
def seen(monkeypatch):
    """The samples of each batch that the training loader has handed out; `seen.stop_after` batches it is interrupted.

    The photos' labels are their numbers.
    """
    handed, batch_of = Seen(), beton.Loader.batch_of

    def noted(self, columns):
        batch = batch_of(self, columns)
        if self.task.shuffle and self.task.sampling is None:
            if len(handed) == handed.stop_after:
                raise Interrupted
            handed.append(columns[1].tolist())
        return batch

    monkeypatch.setattr(beton.Loader, "batch_of", noted)
    return handed


class Seen(list):
    stop_after = None


def example(name, *needs):
    for package in needs:
        pytest.importorskip(package)
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "docs" / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(seen, train, whole, broken):
    """train(folder, resume): three batches into the second epoch it is interrupted, and then resumed."""
    train(whole, False)
    expected = list(seen)
    assert len(expected) == 2 * BATCHES and expected[:BATCHES] != expected[BATCHES:]
    seen.clear()
    seen.stop_after = BATCHES + 3
    with pytest.raises(Interrupted):
        train(broken, False)
    seen.stop_after = None
    train(broken, True)
    assert seen == expected


def test_lightning(seen, numbered, tmp_path):
    module = example("lightning_trainer", "lightning", "timm")

    def train(folder, resume):
        module.train(numbered["beton"], folder, resume, arch="test_resnet", **SMALL)

    check(seen, train, tmp_path / "whole", tmp_path / "broken")


def test_accelerate(seen, numbered, tmp_path):
    module = example("accelerate_loop", "accelerate", "timm")

    def train(folder, resume):
        module.train(numbered["beton"], folder, resume, arch="test_resnet", **SMALL)

    check(seen, train, tmp_path / "whole", tmp_path / "broken")


def test_transformers(seen, numbered, tmp_path):
    pytest.importorskip("accelerate")
    module = example("transformers_trainer", "transformers")
    config = module.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], num_labels=45)

    def train(folder, resume):
        model = module.ResNetForImageClassification(config)
        module.train(numbered["beton"], str(folder), resume, model=model, **SMALL)

    check(seen, train, tmp_path / "whole", tmp_path / "broken")


def test_timm(seen, numbered, tmp_path, monkeypatch):
    script = os.environ.get("TIMM_TRAIN")
    if not script:
        pytest.skip("TIMM_TRAIN does not name the train.py of timm's repository")
    timm = pytest.importorskip("timm")

    def train(folder, resume):
        argv = ["--data-dir", numbered["beton"].parent, "--train-split", "all", "--val-split", "all", "--model"]
        argv += ["test_resnet", "--num-classes", 45, "--img-size", 32, "-b", 8, "--epochs", 2, "--workers", 1]
        argv += ["--device", "cpu", "--output", tmp_path, "--experiment", folder.name, "--recovery-interval", 1]
        argv += ["--warmup-epochs", 0, "--cooldown-epochs", 0]
        if resume:
            last = max((tmp_path / "broken").glob("recovery-*"), key=lambda path: path.stat().st_mtime_ns)
            assert last.name.startswith("recovery-1-2.")
            argv += ["--resume", last]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["timm_train.py", script, *map(str, argv)])
            for name in ("data.create_dataset", "data.create_loader", "utils.CheckpointSaver"):
                patch.setattr(f"timm.{name}", attrgetter(name)(timm))  # afterwards it is what it was
            runpy.run_path(str(ROOT / "docs/examples/timm_train.py"), run_name="__main__")

    check(seen, train, tmp_path / "whole", tmp_path / "broken")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(path):
    assert sum(bool(line.strip()) for line in path.read_text().splitlines()) <= 40
