"""What older versions wrote: our loader was 'ffcv' then, and stock FFCV 'ffcv_stock'."""

import json

import pytest
import torch

from beton.errors import UserError
from runtime.profiling.runs import load_run
from runtime.training import checkpoint
from runtime.training.checkpoint import Position
from runtime.training.run_folder import RunFolder

NAMES = [("ffcv", "beton"), ("ffcv_stock", "ffcv"), ("torch", "torch")]


def old_run(folder, loader):
    folder.mkdir()
    (folder / "params.json").write_text(json.dumps({"params": {"data.loader": loader}}))
    lines = [json.dumps({"epoch": epoch, "loader": loader, "train_time": 1.0}) + "\n" for epoch in range(3)]
    (folder / "log.jsonl").write_text("".join(lines))
    return folder


@pytest.mark.parametrize(("before", "now"), NAMES)
def test_a_checkpoint_of_version_2(tmp_path, before, now):
    model = torch.nn.Linear(2, 2)
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=1.0), torch.amp.GradScaler("cpu", enabled=False)
    content = checkpoint.capture(Position(4), [], {"data.loader": before}, [], model, optimizer, scaler)
    assert content["version"] == 3
    checkpoint.save(content | {"version": 2}, tmp_path / "checkpoint.pt")
    loaded = checkpoint.load(tmp_path / "checkpoint.pt")
    assert loaded["params"]["data.loader"] == now
    assert checkpoint.restore(loaded, tmp_path, 0, model, optimizer, scaler) == Position(4)
    checkpoint.save(content, tmp_path / "checkpoint.pt")
    assert checkpoint.load(tmp_path / "checkpoint.pt")["params"]["data.loader"] == before
    checkpoint.save(content | {"version": 1}, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match="not a checkpoint that this version can resume"):
        checkpoint.restore(checkpoint.load(tmp_path / "checkpoint.pt"), tmp_path, 0, model, optimizer, scaler)


@pytest.mark.parametrize(("before", "now"), NAMES)
def test_a_report_of_an_old_run(tmp_path, before, now):
    run = load_run(old_run(tmp_path / "run", before))
    assert (run["loader"], run["params"]["data.loader"]) == (now, now)


@pytest.mark.parametrize(("before", "now"), NAMES)
def test_an_old_run_that_is_resumed_is_of_the_present_format(tmp_path, before, now):
    folder = old_run(tmp_path / "run", before)
    for _ in range(2):
        RunFolder.reopen(folder, Position(2), {})
        params = json.loads((folder / "params.json").read_text())
        assert params == {"params": {"data.loader": now}, "format": 2}
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        assert [(line["epoch"], line["loader"]) for line in lines] == [(0, now), (1, now)]
    assert load_run(folder)["loader"] == now
