"""Training from a .beton with damaged photos, as data.on_error says."""

import pytest

from tests.support.betons import copied, damage
from tests.support.training import VIT, Run, log_of

TRAIN, VAL = list(range(5, 120, 10)), [7]  # damaged samples


@pytest.fixture
def train(betons, tmp_path):
    """Train for an epoch of at most 15 batches, two of them a step."""
    settings = VIT | {"training.repeats": 1, "training.batch_size": 8, "training.epochs": 1, "lr.warmup_epochs": 0}
    settings |= {"data.train_dataset": damage(copied(betons["train"], tmp_path / "train.beton"), TRAIN)}
    settings |= {"data.val_dataset": damage(copied(betons["val"], tmp_path / "val.beton"), VAL)}

    def train(**changes):
        run = Run(
            tmp_path, settings | {f"data.{key}": value for key, value in changes.items()}, "train_transformers.py"
        )
        try:
            status = run.end()
        finally:
            run.stop()
        log = log_of(run.run) if (run.run / "log.jsonl").exists() else []
        return status, run, log[0] if log else None

    return train


def test_left_out_photos_are_logged_and_the_last_step_is_taken(train):
    status, run, line = train(on_error="skip")
    assert status == 0, run.errors
    # 108 good ones are 13 full batches: 6 steps of two, and the one that is left
    assert (line["images"], run.steps, line["val_images"]) == (104, 7, 40)
    assert line["left_out"] == len(TRAIN)
    assert "left_out=12" in run.output
    settings = [text for text in run.errors.splitlines() if text.startswith("warning: sample ")]
    assert len(settings) == len(TRAIN) + len(VAL)


def test_substitutes_keep_the_number_of_steps(train):
    status, run, line = train(on_error="substitute")
    assert status == 0, run.errors
    assert (line["images"], run.steps, line["val_images"]) == (120, 8, 40)
    assert line["left_out"] == len(TRAIN)


def test_by_default_training_stops_and_names_the_sample(train):
    status, run, _ = train()
    assert status == 2
    line = run.errors.splitlines()[-1]
    assert line.startswith("error: sample ") and "train.beton is damaged (field 'image'" in line


def test_too_few_good_photos_are_an_error(train, betons, tmp_path):
    status, run, line = train(
        on_error="skip", train_dataset=damage(copied(betons["train"], tmp_path / "few"), range(5, 120))
    )
    assert (status, line) == (2, None)
    assert run.errors.splitlines()[-1].startswith("error: epoch 0 has no batch: too many samples are damaged; ")
    (tmp_path / "run").rename(tmp_path / "before")
    status, run, line = train(on_error="skip", val_dataset=damage(copied(betons["val"], tmp_path / "none"), range(41)))
    assert (status, line) == (2, None)
    assert run.errors.splitlines()[-1].startswith("error: there is no photo to validate with: all are damaged; ")
