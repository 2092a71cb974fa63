"""Ranks: those that torchrun starts, one that fails, the device that they train on."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from beton import system
from beton.errors import UserError
from beton.loading.task import Task
from runtime import launch
from tests.support import ranks
from tests.support.scripts import Forked, free_port

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "first", "WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": ""},
        {"RANK": "2", "WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"},
        {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1", "LOCAL_RANK": "-1"},
    ],
)
def test_an_environment_that_is_not_torchruns(monkeypatch, environment):
    """Ranks that cannot meet would wait for each other."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="; start with torchrun"):
        launch.run(None, SimpleNamespace(launch=SimpleNamespace(slurm=0, local=0)))


@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        ("one_fails", 2, "error: rank 1 is broken; repair it"),
        ("one_has_a_bug", 1, "ZeroDivisionError: a bug"),
        pytest.param(
            "one_fails_and_one_hears_nothing", 2, "error: rank 1 is broken; repair it", marks=pytest.mark.slow
        ),
        ("all_leave_after_a_signal", 143, "interrupted"),
    ],
)
def test_a_rank_that_fails_ends_the_run_though_its_peer_waits_for_it(how, status, said, tmp_path):
    """The first is spawned, as for a user; to fork the others is quicker."""
    run = Forked(tmp_path, ranks.start, how, free_port(), how != "one_fails")
    try:
        assert run.end(120) == status, run.errors
    finally:
        run.stop()
    assert said in run.errors
    assert ("Traceback" in run.errors) == (status == 1)


def device(wanted):
    return launch._device(SimpleNamespace(training=SimpleNamespace(device=wanted, tf32=1)), 0)


def test_the_device_is_what_is_wanted_or_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(launch, "_DRIVER", tmp_path / "none")
    assert device("auto") == device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="CUDA does not start .*no NVIDIA driver.; update"):
        device("cuda")
    monkeypatch.setattr(launch, "_DRIVER", Path(__file__))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="CUDA does not start .*an NVIDIA driver.*set training.device=cpu"):
        device("auto")  # it trained on the CPU without a word


def test_a_task_of_slurm_sees_its_own_gpu_only(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    settings = SimpleNamespace(training=SimpleNamespace(device="auto", tf32=1))
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert launch._device(settings, 3) == torch.device("cuda", 0)
    assert chosen == [0]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")  # torchrun's: here there must be as many
    with pytest.raises(UserError, match="there is no GPU 3"):
        launch._device(settings, 3)


def test_ranks_of_one_machine_share_its_cores(monkeypatch):
    all_cores = set(range(16))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: all_cores)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert Task("", 8, workers=12).usable_workers == 12
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert Task("", 8, workers=12).usable_workers == 4
    assert "4 threads (not 12" in Task("", 8, workers=12).describe_workers("threads")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert Task("", 8, workers=12).usable_workers == 1
    for bound, expected in ((range(2), 2), (range(8), 4)):  # alone, and with another one
        monkeypatch.setattr(os, "sched_getaffinity", lambda process, own=bound: all_cores if process else set(own))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
        assert system.cores_of_rank() == expected
