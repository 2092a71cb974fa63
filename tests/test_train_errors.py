"""What a user gets wrong ends real processes as it ends those of test_nonsense*.py: one line, status 2."""

import pytest
import torch
from conftest import assert_user_error, run_script
from test_train import arguments
from training import run_forked

from pipelines.errors import UserError
from runtime import launch


def test_a_damaged_recipe_and_a_foreign_checkpoint(betons, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("training:\n  epohcs: 3\n")
    done = run_forked(*arguments(betons, tmp_path), f"--config-file={recipe}")
    assert_user_error(done, "training.epohcs", "recipe.yaml", "training.epochs")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "foreign.pt")
    done = run_forked(*arguments(betons, tmp_path, training__resume=tmp_path / "foreign.pt"))
    assert_user_error(done, "foreign.pt")
    assert not (tmp_path / "run").exists()


def test_an_error_in_started_ranks_is_one_line(betons, tmp_path):
    changes = {"training__distributed": 1, "dist__world_size": 2, "training__batch_size": 1000, "dist__port": 29871}
    done = run_script(*arguments(betons, tmp_path, **changes))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "too few" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("script", ["train_imagenet.py", "write_dataset.py", "profile_loaders.py"])
def test_no_place_for_compiled_code(tmp_path, script):
    (tmp_path / "file").touch()
    done = run_script(script, XDG_CACHE_HOME=str(tmp_path / "file"), NUMBA_CACHE_DIR="")
    assert_user_error(done, "ffcv-toolkit", "XDG_CACHE_HOME")


@pytest.mark.parametrize(
    "told",
    [
        {"RANK": "first", "WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": ""},
        {"RANK": "2", "WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"},
        {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1", "LOCAL_RANK": "-1"},
    ],
)
def test_an_environment_that_is_not_torchruns(monkeypatch, told):
    """Ranks that cannot meet would wait for each other."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="; start with torchrun"):
        launch.run(None, None)
