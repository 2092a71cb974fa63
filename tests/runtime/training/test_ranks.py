"""The same training on one, two and four ranks: losses, evaluation, and a run that goes on on other ranks."""

import functools
import math
import signal

import pytest
import torch

from tests.support import hooks
from tests.support.scripts import free_port
from tests.support.training import VIT, Run, log_of, position

GLOBAL_BATCH, EPOCHS = 16, 8  # of 120 photos: 7 steps an epoch
# Layer norm, no batch norm, and no dropout: what a rank would do by itself. Mixup and CutMix are for all ranks the same
SETTINGS = VIT | {
    "training.batch_size": None,
    "training.global_batch_size": GLOBAL_BATCH,
    "training.accumulate": 1,
    "training.repeats": 1,
    "training.epochs": EPOCHS,
    "training.optimizer": "sgd",
    "training.ema": "null",
    "training.checkpoint_minutes": "null",
    "training.device": "cpu",
    "model.drop_path": "null",
    "data.train_stages": "rrc({res})|flip|normalize",
    "lr.lr": 0.01,
    "lr.warmup_epochs": 1,
    "logging.log_level": 0,
}


def start(folder, betons, ranks, **changes):
    given = SETTINGS | {f"data.{split}_dataset": betons[split] for split in ("train", "val")} | changes
    if ranks > 1:
        given |= {"training.distributed": 1, "dist.world_size": ranks, "dist.port": free_port()}
    return Run(folder, given, "train_transformers.py", functools.partial(hooks.recorded_losses, ranks))


def losses_of(folder, ranks) -> list[float]:
    """The loss of each step: the mean of its ranks'."""
    own = [[float(line) for line in (folder / f"losses-{rank}").read_text().split()] for rank in range(ranks)]
    return [math.fsum(step) / ranks for step in zip(*own, strict=True)]


@pytest.fixture(scope="module")
def whole(betons, tmp_path_factory):
    """whole(ranks): the folder of a run on so many ranks that nothing interrupted, made once."""

    @functools.cache
    def run(ranks):
        folder = tmp_path_factory.mktemp(f"ranks-{ranks}")
        found = start(folder, betons, ranks)
        try:
            assert found.end() == 0, found.errors
        finally:
            found.stop()
        return folder

    return run


def test_one_two_and_four_ranks_make_the_same_steps(whole):
    expected = losses_of(whole(1), 1)
    assert len(expected) >= 50 and max(expected) - min(expected) > 0.01
    ends = {ranks: log_of(whole(ranks) / "run")[-1] for ranks in (1, 2, 4)}
    for ranks in (2, 4):
        assert losses_of(whole(ranks), ranks) == pytest.approx(expected, rel=1e-5)
        for name in ("top_1", "top_5", "val_images"):
            assert ends[ranks][name] == ends[1][name]
        assert ends[ranks]["val_loss"] == pytest.approx(ends[1]["val_loss"], rel=1e-5)
        assert ends[ranks]["train_loss"] == pytest.approx(ends[1]["train_loss"], rel=1e-5)
    assert ends[1]["val_images"] == 41


def test_a_run_of_four_ranks_goes_on_on_two_in_mid_epoch(whole, betons, tmp_path):
    first = start(tmp_path, betons, 4, **{"training.checkpoint_minutes": 0})
    try:
        first.wait_for_steps(4 * 17)  # each rank writes its own: in the third epoch
        first.kill(signal.SIGTERM)
        assert first.end() == 143, first.errors
        epoch, batch = position(tmp_path / "run/checkpoint.pt")
        assert 0 < epoch < EPOCHS - 1 and 0 < batch < 7
        wrong = start(tmp_path, betons, 2, **{"training.global_batch_size": 8})
        assert wrong.end() == 2
        assert "was made with 4 x training.batch_size=4, not 2 x 4; give training.global_batch_size=16" in wrong.errors
        second = start(tmp_path, betons, 2)
        assert second.end() == 0, second.errors
        assert "was made with world size=4, now it is 2" in second.output
    finally:
        first.stop()
    found, expected = (torch.load(f / "run/final_weights.pt", weights_only=True) for f in (tmp_path, whole(4)))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5)
    for one, other in zip(log_of(tmp_path / "run"), log_of(whole(4) / "run"), strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)
    assert log_of(tmp_path / "run")[epoch]["images"] == 7 * GLOBAL_BATCH // 2
