"""What a user gets wrong ends as one line that says what and what to do, with status 2."""

import pytest
import torch
from conftest import assert_user_error, run_script
from test_train import arguments


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"training__epohcs": 3}, ["training.epohcs", "training.epochs"]),
        ({"training__epochs": "abc"}, ["training.epochs=abc", "int"]),
        ({"training__epochs": 0}, ["training.epochs=0"]),
        ({"data__train_dataset": "missing.beton"}, ["missing.beton"]),
        ({"data__train_dataset": "pyproject.toml"}, ["pyproject.toml"]),
        ({"data__train_dataset": "tests"}, ["tests"]),
        ({"data__loader": "torch", "data__val_dataset": "tests/conftest.py"}, ["tests/conftest.py"]),
        ({"data__loader": "toch"}, ["toch", "torch", "pipelines/loaders/toch.py"]),
        ({"data__train_stages": "rcc({res})|flip|normalize"}, ["rcc", "rrc"]),
        ({"data__train_stages": "flip|rrc({res})"}, ["first"]),
        ({"training__batch_size": 1000}, ["too few", "batch size"]),
        ({"training__resume": "nowhere/checkpoint.pt"}, ["nowhere/checkpoint.pt"]),
        ({"model__weights": "pyproject.toml"}, ["pyproject.toml"]),
        ({"model__arch": "resnet19"}, ["resnet19", "torchvision"]),
        ({"model__arch": "timm:resnet19"}, ["resnet19", "timm"]),
        ({"training__optimizer": "sdg"}, ["sdg"]),
        ({"resolution__min_res": 128}, ["min_res"]),
        ({"logging__folder": "pyproject.toml/runs"}, ["pyproject.toml/runs"]),
    ],
)
def test_a_wrong_value_is_one_line(betons, tmp_path, change, words):
    assert_user_error(run_script(*arguments(betons, tmp_path, **change)), *words)


def test_a_misspelt_yaml_key_is_one_line(betons, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("training:\n  epohcs: 3\n")
    done = run_script(*arguments(betons, tmp_path), f"--config-file={recipe}")
    assert_user_error(done, "training.epohcs", "recipe.yaml", "training.epochs")


def test_a_foreign_checkpoint_is_refused(betons, tmp_path):
    torch.save({"weights": torch.zeros(3)}, tmp_path / "foreign.pt")
    done = run_script(*arguments(betons, tmp_path, training__resume=tmp_path / "foreign.pt"))
    assert_user_error(done, "foreign.pt")


def test_an_existing_run_is_not_overwritten(betons, tmp_path):
    (tmp_path / "run").mkdir()
    assert_user_error(run_script(*arguments(betons, tmp_path)), "exists")


def test_an_error_in_started_ranks_is_one_line(betons, tmp_path):
    changes = {"training__distributed": 1, "dist__world_size": 2, "training__batch_size": 1000, "dist__port": 29871}
    done = run_script(*arguments(betons, tmp_path, **changes))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "too few" in done.stderr
