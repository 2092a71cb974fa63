"""Signals in a training run: its status, and the checkpoint that it leaves."""

import math
import os
import signal
import threading

import numpy as np
import psutil
import pytest
import torch
import torch.distributed as dist

from beton.errors import UserError
from pipelines import open_pipeline
from runtime.launch import Rank
from runtime.training import checkpoint, checkpoint_manager, engine
from runtime.training.checkpoint import Position
from runtime.training.checkpoint_manager import CheckpointManager
from tests.support import hooks
from tests.support.betons import copied, damage
from tests.support.loaders import task
from tests.support.scripts import free_port
from tests.support.training import Run, digest, log_without_times, position

BATCHES = 15  # in an epoch


@pytest.fixture
def damaged_train(betons, tmp_path):
    """One sample of the second rank is damaged."""
    second = task(betons["train"], batch_size=4, rank=1, world_size=2).order(120, 0)[0]
    return damage(copied(betons["train"], tmp_path / "damaged.beton"), [int(second[50])])


@pytest.fixture
def start(resnet, tmp_path):
    """Start runs in a folder; whatever of them is left at the end is killed."""
    started = []

    def start(hook=None, **changes):
        settings = resnet | {key.replace("__", "."): value for key, value in changes.items()}
        started.append(Run(tmp_path, settings, hook=hook))
        return started[-1]

    yield start
    for run in started:
        run.stop()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138)])
def test_signal_in_mid_epoch(start, finished, number, status):
    run = start(training__checkpoint_minutes="null")
    run.wait_for_steps(20)
    run.kill(number)
    assert run.end() == status, run.errors
    epoch, batch = position(run.run / "checkpoint.pt")
    assert epoch * BATCHES + batch == run.steps, "the checkpoint is older than the last finished step"
    assert not batch or position(run.run / "checkpoint.old.pt") == (epoch, 0), "there was one in the epoch before"
    assert run.errors.splitlines()[-1] == "interrupted"
    assert f"checkpoint is after {epoch} epochs and {batch} batches" in run.output
    again = start()
    assert again.end() == 0, again.errors
    assert again.steps == 3 * BATCHES - epoch * BATCHES - batch
    assert digest(again.run) == digest(finished)


def test_signal_in_validation(start, finished):
    run = start(hooks.never_ending_validation, training__checkpoint_minutes="null")
    run.wait_until_it_waits()
    run.kill(signal.SIGTERM)
    assert run.end() == 143, run.errors
    assert position(run.run / "checkpoint.pt") == (0, BATCHES)
    again = start()
    assert again.end() == 0, again.errors
    assert again.steps == 2 * BATCHES
    assert digest(again.run) == digest(finished)


def test_signal_in_the_validation_of_two_ranks_one_of_which_is_done(start):
    settings = {"training__distributed": 1, "dist__world_size": 2, "dist__port": free_port()}
    run = start(hooks.never_ending_validation_of_one_rank, **settings)
    run.wait_until_it_waits()
    run.kill(signal.SIGTERM)
    assert run.end() == 143, run.errors
    assert "Traceback" not in run.errors
    content = torch.load(run.run / "checkpoint.pt", weights_only=True)
    assert content["epoch"] == 0 and content["batch"] > 0


def test_signal_before_there_is_anything_to_save(start):
    run = start(hooks.endless_first_step)
    run.wait_until_it_waits()
    run.kill(signal.SIGTERM)
    assert run.end() == 143, run.errors
    assert "SIGTERM: no step was made" in run.output
    assert "resume with" not in run.output


def test_a_closed_terminal_is_heeded_unless_it_is_to_be_ignored(start):
    run = start()
    run.wait_for_steps(3)
    run.kill(signal.SIGHUP)
    assert run.end() == 129, run.errors
    run = start(hooks.as_after_nohup)
    run.wait_for_steps(3)
    run.kill(signal.SIGHUP)
    assert run.end() == 0, run.errors


def test_ctrl_c_while_no_batch_comes(start):
    run = start(hooks.stalled_loader, training__checkpoint_minutes="null")
    run.wait_until_it_waits()
    run.kill(signal.SIGINT)
    assert run.end() == 130, run.errors
    assert position(run.run / "checkpoint.pt") == (0, 3)


def test_second_ctrl_c_does_not_wait_for_the_step(start):
    run = start(hooks.endless_second_step, training__checkpoint_minutes="null")
    run.wait_until_it_waits()
    for _ in range(2):
        run.kill(signal.SIGINT)  # one Ctrl-C may come twice
    run.process.join(1.2)
    assert run.is_running
    run.kill(signal.SIGINT)
    assert run.end() == 130, run.errors
    assert not list(run.run.glob("*checkpoint*"))


def test_signals_while_a_checkpoint_is_written_do_no_harm(start):
    run = start(hooks.signals_while_saving)
    assert run.end() == 143, run.errors
    assert run.steps in (1, 2), "it is written beside the second step"
    assert position(run.run / "checkpoint.pt") == (0, run.steps)
    assert not list(run.run.glob(".*"))


def test_signal_to_all_processes_spares_the_workers_of_the_standard_loader(start, photo_folder):
    folders = {f"data__{split}_dataset": photo_folder / split for split in ("train", "val")}
    run = start(training__checkpoint_minutes="null", data__loader="torch", data__num_workers=2, **folders)
    run.wait_for_steps(4)
    workers = psutil.Process(run.process.pid).children()
    os.killpg(run.process.pid, signal.SIGTERM)
    assert run.end() == 143, run.errors
    assert position(run.run / "checkpoint.pt") == (0, run.steps)
    assert workers
    assert not psutil.wait_procs(workers, 5)[1], "a worker is left"


def test_two_ranks_stop_after_the_same_step_and_go_on(start, damaged_train, tmp_path):
    """One photo is damaged; the rank that logs does not get it."""
    settings = {"training__distributed": 1, "dist__world_size": 2, "training__epochs": 1, "training__batch_size": 4}
    settings |= {"data__train_dataset": damaged_train, "data__on_error": "substitute"}
    whole = start(hooks.forked_ranks, dist__port=free_port(), **settings, logging__name="whole")
    assert whole.end() == 0, whole.errors
    assert [line["left_out"] for line in log_without_times(tmp_path / "whole")] == [1]

    run = start(hooks.forked_ranks, dist__port=free_port(), **settings)
    run.wait_for((run.run / "checkpoint.pt").exists)
    run.kill(signal.SIGTERM)
    assert run.end() == 143, run.errors
    content = torch.load(run.run / "checkpoint.pt", weights_only=True)
    assert 0 < content["batch"] < 15
    assert len(content["ranks"]) == 2
    draws = [rank["generators"]["cpu"] for rank in content["ranks"]]
    assert not torch.equal(*draws), "dropout and drop path would be the same on both ranks"
    # Each batch of both ranks is in the sums of one of them
    assert [rank["sums"]["photos"] for rank in content["ranks"]] == [4 * content["batch"]] * 2
    assert "Traceback" not in run.errors

    again = start(hooks.forked_ranks, dist__port=free_port(), **settings)
    assert again.end() == 0, again.errors
    assert digest(again.run) == digest(tmp_path / "whole")
    assert log_without_times(again.run) == log_without_times(tmp_path / "whole")


def test_loss_that_is_not_finite_stops_the_run(start, resnet):
    run = start(lr__lr=1e6, training__seed=4)
    assert run.end() == 2
    line = run.errors.splitlines()[-1]
    assert line.startswith("error: the loss became ")
    assert "Traceback" not in run.errors
    batch = run.steps  # the one after the last step
    samples = task("", batch_size=8, seed=4).order(120, 0)[0][8 * batch : 8 * (batch + 1)]
    assert f"in epoch 0, batch {batch} of 15 (learning rate " in line
    assert f"samples {', '.join(map(str, samples))})" in line
    for path in run.run.glob("checkpoint*.pt"):
        assert position(path)[1] <= batch


def test_the_first_loss_that_is_not_finite_is_reported_later(monkeypatch):
    """A GPU is looked at now and then only."""
    monkeypatch.setattr(engine.EpochSums, "check", lambda self: None)

    class Loader(list):
        times = None

        def samples(self, epoch, batch):
            return [epoch, batch]

    sums = engine.EpochSums(Rank(0, 1, torch.device("cpu")), Loader(range(10)), Position(3))
    for loss in (1.0, 2.0, math.inf, math.nan, 1.0):
        sums.add(torch.tensor(loss), 4, 0.1 + sums.batch)
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"became inf in epoch 3, batch 2 of 10 \(learning rate 2.1, samples 3, 2\)"):
        sums.check()


def test_time_for_a_checkpoint(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(checkpoint_manager.time, "monotonic", lambda: now[0])
    manager = checkpoint_manager.CheckpointManager(
        Rank(0, 1, torch.device("cpu")), lambda position, ranks: {"batch": position.batch}, tmp_path, 2
    )
    saved = []
    for batch in range(1, 8):
        now[0] += 50
        manager.step_begins()
        manager.step_ended(lambda batch=batch: Position(0, batch))
        manager.writer.wait()
        saved.append(
            checkpoint.load(tmp_path / "checkpoint.pt")["batch"] if (tmp_path / "checkpoint.pt").exists() else 0
        )
    assert saved == [0, 0, 3, 3, 3, 6, 6]


@pytest.fixture
def one_of_two(tmp_path, monkeypatch):
    """A manager of rank 0 of two, which says what is written; the other rank is not there."""
    votes, written = [], []
    monkeypatch.setattr(dist, "all_reduce", lambda tensor, *_: votes.append(tensor.tolist()))
    monkeypatch.setattr(dist, "all_gather_object", lambda ranks, own: ranks.__setitem__(slice(None), [own, own]))
    monkeypatch.setattr(checkpoint, "save", lambda content, *_: written.append(content))

    def make(minutes=None):
        def capture(position, ranks):
            return {"batch": position.batch, "ranks": len(ranks)}

        return CheckpointManager(Rank(0, 2, torch.device("cpu")), capture, tmp_path, minutes), votes, written

    return make


@pytest.mark.parametrize(("step", "least", "most"), [(0.01, 5, 20), (10, 500, 501)], ids=["quick", "slow"])
def test_ranks_vote_about_once_a_second(one_of_two, monkeypatch, step, least, most):
    now = [100.0]
    monkeypatch.setattr(checkpoint_manager.time, "monotonic", lambda: now[0])
    manager, votes, _ = one_of_two()
    for batch in range(500):
        now[0] += step
        manager.step_begins()
        manager.step_ended(lambda batch=batch: Position(0, batch + 1))
    assert least <= len(votes) <= most


def test_with_several_ranks_an_epoch_is_saved_once_or_when_its_validation_is_interrupted(one_of_two):
    manager, _, written = one_of_two()
    with manager:
        for batch in (1, 2):
            manager.step_begins()
            manager.step_ended(lambda batch=batch: Position(0, batch))
        manager.training_ended(Position(0, 2))
        manager.epoch_ended(Position(1))
    assert written == [{"batch": 0, "ranks": 2}]
    manager, _, written = one_of_two()
    written.clear()
    with pytest.raises(SystemExit) as end, manager:
        manager.step_begins()
        manager.step_ended(lambda: Position(0, 1))
        manager.training_ended(Position(0, 1))
        os.kill(os.getpid(), signal.SIGTERM)
    assert end.value.code == 143
    assert written == [{"batch": 1, "ranks": 2}]


def test_a_checkpoint_is_of_its_own_moment_and_its_failure_is_an_error(tmp_path, monkeypatch):
    """What is written beside the next steps must not have their weights."""
    weights, go_on, written = torch.zeros(3), threading.Event(), []

    def save(content, *_):
        assert go_on.wait(60)
        written.append(content["model"]["weights"].tolist())
        raise UserError("the disk is full", "free some space")

    monkeypatch.setattr(checkpoint, "save", save)
    rank = Rank(0, 1, torch.device("cpu"))
    with (
        pytest.raises(UserError, match="the disk is full"),
        CheckpointManager(rank, lambda *_: {"model": {"weights": weights}}, tmp_path, None) as manager,
    ):
        manager.save(Position(1))
        weights.fill_(7)
        go_on.set()
    assert written == [[0, 0, 0]]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("checkpoint")]


def test_samples_of_a_batch_are_those_of_the_order(numbered):
    with open_pipeline("beton", task(numbered["beton"], batch_size=5, seed=1)) as pipeline:
        everything = np.concatenate([pipeline.samples(2, batch) for batch in range(9)])
        labels = [batch.tolist() for _, batch in pipeline.batches(2)]
    assert sorted(everything) == list(range(45))
    assert everything.tolist() == sum(labels, []), "labels are numbers of samples"
