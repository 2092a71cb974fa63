"""Checkpoints: whatever happens to a file is noticed, nothing in it is executed, writing is all or nothing."""

import errno
import os
import pickle
import random
import zipfile

import pytest
import torch
from torch import nn

from beton.errors import UserError
from runtime.training import checkpoint
from runtime.training.checkpoint import Position


def parts(seed=0, features=8):
    """A model, its optimizer after a step, and a scaler."""
    torch.manual_seed(seed)
    model = nn.Linear(features, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(3, features)).sum().backward()
    optimizer.step()
    return model, optimizer, torch.amp.GradScaler("cpu", enabled=False)


def capture(position, *of):
    ranks = [{"generators": checkpoint.generators(), "sums": position.sums}]
    return checkpoint.capture(position, ranks, {}, ["a", "b"], *of)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(capture(Position(2, 3, {"loss": 1.5, "left_out": [4]}), *parts()), path)
    return path


def test_what_is_saved_comes_back(saved):
    torch.manual_seed(5)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    model, optimizer, scaler = parts()
    torch.manual_seed(5)
    checkpoint.save(capture(Position(2, 3, {"loss": 1.5}), model, optimizer, scaler), saved)
    other, other_optimizer, _ = parts(seed=1)
    content = checkpoint.load(saved)
    restored = checkpoint.restore(content, saved, 0, other, other_optimizer, scaler)
    checkpoint.set_generators(content["ranks"][0]["generators"])
    assert restored == Position(2, 3, {"loss": 1.5})
    assert torch.equal(torch.rand(3), drawn)
    assert torch.equal(other.weight, model.weight)
    momentum = [o.state[m.weight]["momentum_buffer"] for o, m in ((optimizer, model), (other_optimizer, other))]
    assert torch.equal(*momentum)


def test_plain_torch_and_zip_read_it(saved):
    assert torch.load(saved, weights_only=True)["epoch"] == 2
    with zipfile.ZipFile(saved) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"sha256:")


def test_every_flipped_bit_is_noticed(saved):
    """Without the SHA-256 torch takes most of them: it does not look at its archive's checksums."""
    content, draws, path = saved.read_bytes(), random.Random(0), saved.with_name("flipped.pt")
    expected = checkpoint.load(saved)["model"]
    for _ in range(300):
        damaged = bytearray(content)
        damaged[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
        path.write_bytes(damaged)
        try:
            same = checkpoint.load(path)["model"]
        except UserError as error:
            assert "flipped.pt" in str(error)
        else:
            # Only a flip in the mark of the SHA-256 itself, which says nothing of the content
            assert damaged[:-80] == content[:-80]
            assert all(torch.equal(same[name], expected[name]) for name in expected)


def test_every_length_is_noticed(saved):
    content, path = saved.read_bytes(), saved.with_name("short.pt")
    for length in [*range(0, len(content) - 100, 37), *range(len(content) - 100, len(content) - 73)]:
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match="short.pt"):
            checkpoint.load(path)


class Harm:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["zip", "pickle"])
def test_code_in_a_checkpoint_is_not_executed(tmp_path, how):
    path, made = tmp_path / "checkpoint.pt", tmp_path / "made"
    if how == "zip":
        checkpoint.save({"model": Harm(made)}, path)
    else:
        path.write_bytes(pickle.dumps({"model": Harm(made)}, protocol=2))
    with pytest.raises(UserError, match="checkpoint.pt"):
        checkpoint.load(path)
    assert not made.exists()
    torch.load(path, weights_only=False) if how == "zip" else pickle.loads(path.read_bytes())
    assert made.exists(), "it would have"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"weights": torch.zeros(3)}, "not a checkpoint"),
        (torch.zeros(3), "no weights"),
        (capture(Position(1), *parts(features=9)), "do not fit the model"),
    ],
)
def test_foreign_content_is_refused_by_name(tmp_path, content, words):
    path = tmp_path / "foreign.pt"
    torch.save(content, path)
    with pytest.raises(UserError, match=f"foreign.pt.*{words}|{words}.*"):
        checkpoint.restore(checkpoint.load(path), path, 0, *parts())


@pytest.mark.parametrize(
    ("version", "then", "now"),
    [
        (2, "ffcv", "beton"),
        (2, "ffcv_stock", "ffcv"),
        (2, "torch", "torch"),
        (3, "ffcv", "ffcv"),
        (3, "beton", "beton"),
    ],
)
def test_loaders_of_version_2_have_their_present_names(tmp_path, version, then, now):
    path, parameters = tmp_path / "checkpoint.pt", {"data.loader": then, "lr.lr": 0.5}
    content = capture(Position(2, 3, {"loss": 1.5}), *parts()) | {"version": version, "params": parameters}
    checkpoint.save(content, path)
    loaded = checkpoint.load(path)
    assert loaded["params"] == {"data.loader": now, "lr.lr": 0.5}
    other = parts(seed=1)
    assert checkpoint.restore(loaded, path, 0, *other) == Position(2, 3, {"loss": 1.5})
    assert torch.equal(other[0].weight, content["model"]["weight"])


@pytest.mark.parametrize("version", [1, 4, None])
def test_checkpoints_of_unknown_versions_are_refused(tmp_path, version):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(capture(Position(1), *parts()) | {"version": version}, path)
    with pytest.raises(UserError, match="checkpoint.pt is not a checkpoint that this version can resume"):
        checkpoint.restore(checkpoint.load(path), path, 0, *parts())


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_the_one_before_is_kept(tmp_path, monkeypatch, links):
    path, older = tmp_path / "checkpoint.pt", tmp_path / "checkpoint.old.pt"
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    for number in range(3):
        checkpoint.save({"number": number}, path, older)
    assert checkpoint.load(path)["number"] == 2
    assert checkpoint.load(older)["number"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.old.pt", "checkpoint.pt"]


@pytest.mark.parametrize("call", ["fsync", "link", "replace"])
def test_failure_while_writing_leaves_what_there_was(tmp_path, monkeypatch, call):
    path, older = tmp_path / "checkpoint.pt", tmp_path / "checkpoint.old.pt"
    for number in range(2):
        checkpoint.save({"number": number}, path, older)

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, call, stopped)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save({"number": 2}, path, older)
    monkeypatch.undo()
    assert checkpoint.load(path)["number"] == 1
    assert checkpoint.load(older)["number"] in (0, 1)


def test_full_disk_is_one_line(tmp_path, monkeypatch):
    class Full(checkpoint._Hashing):
        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "checkpoint.pt"
    checkpoint.save({"number": 0}, path)
    monkeypatch.setattr(checkpoint, "_Hashing", Full)
    with pytest.raises(UserError, match="cannot write .*checkpoint.pt"):
        checkpoint.save({"number": 1}, path)
    assert checkpoint.load(path)["number"] == 0
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]
