"""Scripts as processes that are started for real: what a user gets wrong ends them as it ends them in the tests."""

import functools

import pytest

from tests.support import hooks
from tests.support.nonsense import LONG
from tests.support.scripts import assert_user_error, forked, free_port, here, run_script
from tests.support.training import RESNET, options


def test_a_process_ends_as_this_one_does():
    script, argv = "write_dataset.py", ["--cfg.split=a\nb\udcff", f"--cfg.write_path={LONG}"]
    done, same = run_script(script, *argv), here(script, *argv)
    assert_user_error(done)
    assert (done.returncode, done.stdout, done.stderr) == (same.returncode, same.stdout, same.stderr)


def test_an_error_in_started_ranks_is_one_line(betons, tmp_path):
    settings = RESNET | {"data.train_dataset": betons["train"], "data.val_dataset": betons["val"]}
    ranks = {"training__distributed": 1, "dist__world_size": 2, "dist__port": free_port()}
    argv = options(settings, logging__folder=tmp_path, training__batch_size=1000, **ranks)
    done = forked("train_imagenet.py", *argv, hook=functools.partial(hooks.forked_ranks, ""))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "too few" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("script", ["train_imagenet.py", "write_dataset.py", "profile_loaders.py"])
def test_no_place_for_compiled_code(tmp_path, script):
    (tmp_path / "file").touch()
    done = run_script(script, XDG_CACHE_HOME=str(tmp_path / "file"), NUMBA_CACHE_DIR="")
    assert_user_error(done, "ffcv-toolkit", "XDG_CACHE_HOME")
