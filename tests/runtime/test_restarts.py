"""How a run that torchrun may start again finds its folder; that it does: training/test_restarts.py."""

import os
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from beton.errors import UserError
from runtime import restarts
from runtime.config import Settings
from runtime.launch import Rank
from runtime.training import run
from runtime.training.checkpoint import Position
from runtime.training.resume import Start
from tests.support.scripts import free_port


def continued(monkeypatch, given=(), **environment):
    """Name and training.resume of a run with `given` settings under torchrun with this environment."""
    there = {"RUN_ID": "none", "MAX_RESTARTS": "0", "USE_AGENT_STORE": "False"} | environment
    monkeypatch.setenv("GROUP_WORLD_SIZE", there.pop("MACHINES", "1"))
    for name, value in there.items():
        monkeypatch.setenv(f"TORCHELASTIC_{name}", value)
    values = {"logging.name": None, "training.resume": None, "training.eval_only": False} | dict(given)
    found = restarts.of_torchrun(Settings(values, dict.fromkeys(values, "default")))
    assert found.flat() == values | {
        "logging.name": found.logging.name,
        "training.resume": found.training.resume,
    }
    return found.logging.name, found.training.resume


def test_one_machine(monkeypatch):
    assert continued(monkeypatch) == (None, None)
    name, resume = continued(monkeypatch, MAX_RESTARTS="3")
    assert name.endswith(f"-{os.getppid()}") and resume == "auto"
    assert continued(monkeypatch, MAX_RESTARTS="3") == (name, resume)
    given = {"logging.name": "mine", "training.resume": "runs/other"}
    assert continued(monkeypatch, given, MAX_RESTARTS="3") == ("mine", "runs/other")
    assert continued(monkeypatch, {"training.eval_only": True}, MAX_RESTARTS="3") == (None, None)


def test_several_machines(monkeypatch):
    assert continued(monkeypatch, MACHINES="2") == (None, None)
    assert continued(monkeypatch, MACHINES="2", RUN_ID="a/b c.1") == ("a-b-c.1", "auto")
    assert continued(monkeypatch, {"logging.name": "mine"}, MACHINES="2", MAX_RESTARTS="1") == ("mine", "auto")
    with pytest.raises(UserError, match="it has no name; .*--rdzv-id"):
        continued(monkeypatch, MACHINES="2", MAX_RESTARTS="1")
    with pytest.raises(UserError, match="TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        continued(monkeypatch, MACHINES="2", RUN_ID="a", MAX_RESTARTS="1", USE_AGENT_STORE="True")


def test_ranks_that_see_different_checkpoints_do_not_start(monkeypatch):
    """Their disks are not shared."""
    monkeypatch.setattr(dist, "all_gather_object", lambda found, own: found.__setitem__(slice(None), [own, (0, 0)]))
    rank = Rank(0, 2, torch.device("cpu"))
    run._check_same_start(rank, Start())
    with pytest.raises(UserError, match="rank 0 starts after 1 epochs and 7 batches, rank 1 after 0 and 0; give"):
        run._check_same_start(rank, Start(Position(1, 7)))


def test_a_rank_that_does_not_come_is_an_error(monkeypatch):
    monkeypatch.setattr(restarts, "_MEETING", timedelta(seconds=1))
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    with pytest.raises(UserError, match="rank 0 of 2 does not meet the others at localhost:.*1/2"):
        restarts.store(0, 2)
