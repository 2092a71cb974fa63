"""What is said about a run, from log lines whose numbers are worked out by hand here."""

import pytest

from runtime import verdict
from runtime.verdict import Alternative


def line(epoch=1, wait=61.0, start=0.0, compute=30.0, val=3.0, **more):
    """An epoch of wait + 30 + 5 + 1 + 3 + 5 seconds: by default 105."""
    made = {"epoch": epoch, "wait_time": wait, "first_batch_time": start, "transfer_time": 1.0, "compute_time": compute}
    made |= {"optimizer_time": 5.0, "compile_time": 0.0, "val_time": val, "train_time": wait + start + compute + 6.0}
    return made | {"epoch_time": made["train_time"] + val + 5.0} | more


def test_the_parts_add_up_to_the_epoch_and_the_first_epoch_is_left_out():
    parts = verdict.breakdown([line(0, wait=500.0), line(1, wait=60.0), line(2, wait=62.0), {"final": True}])
    assert sum(parts.values()) == pytest.approx(105.0)
    assert parts["waiting for data"] == 61.0 and parts["other"] == pytest.approx(5.0)
    assert verdict.breakdown([{"epoch": 0, "train_time": 1.0, "wait_time": 0.5}]) is None


def test_the_loader_is_the_limit():
    text = verdict.in_words(verdict.breakdown([line()]))
    assert text.startswith("the loader limits this run: 58 % of the epoch waiting")
    assert text.endswith("with the data cached it would take 44 s instead of 105 s")


def test_the_model_is_the_limit_and_no_loader_helps():
    parts = verdict.breakdown([line(wait=0.5)])
    assert verdict.in_words(parts).startswith("the model limits this run: 79 % of the epoch computing, 1 % waiting")
    assert "no loader can save more than 0.50 s of 44 s" in verdict.in_words(parts)
    faster = [Alternative("another loader", 0.1, 1)]
    assert [change.text for change in verdict.changes(parts, 2, 4.0, faster)] == [
        "evaluate at the end only (logging.log_level=0)"
    ]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"wait": 20.0}, "the model limits this run: 55 % of the epoch computing, 31 % waiting; with the data cached"),
        ({"wait": 0.0, "val": 90.0}, "evaluation limits this run"),
        ({"wait": 0.0, "transfer_time": 90.0, "epoch_time": 133.0}, "copies to the device limit this run"),
        ({"wait": 0.0, "compile_time": 90.0, "epoch_time": 134.0}, "compiling limits this run"),
    ],
)
def test_other_limits(more, words):
    assert verdict.in_words(verdict.breakdown([line(**more)])).startswith(words)


def test_changes_are_computed_and_the_cheapest_come_first():
    parts = verdict.breakdown([line(val=0.5)])
    # Loading takes 61 + 1 + 30 + 5 + 4.5... = the whole training part, busy is all of it but the wait
    busy = sum(parts.values()) - parts["waiting for data"] - parts["evaluation"]
    load = parts["waiting for data"] + busy
    ways = [Alternative("as blocks", 0.5, 2), Alternative("data.loader=beton", 0.1, 1)]
    found = verdict.changes(parts, 2, 1.1, ways)
    assert [change.effort for change in found] == [0, 1, 2]
    assert found[0].text == "data.num_workers=3 (1.1 cores are idle)"
    assert found[0].saves == pytest.approx(load - load * 2 / 3)
    assert found[1].saves == pytest.approx(61.0)  # as fast as the model needs: all of the wait, and no more
    assert found[2].saves == pytest.approx(min(61.0, load / 2))


def test_a_loader_without_idle_cores_gets_no_more_workers():
    parts = verdict.breakdown([line(val=0.0)])
    assert verdict.changes(parts, 2, 0.3) == []
    shares = {"decode": 3e-4, "augment": 1e-4}
    (change,) = verdict.changes(parts, 2, 0.3, shares=shares)
    assert change.text.startswith("fewer stages") and change.saves == pytest.approx(102.0 / 4)


def test_the_last_line_of_a_run():
    text = verdict.of_run([line(0), line(1, idle_cores=2.2)], 2)
    assert (
        text.startswith("the loader limits this run") and "data.num_workers=4 (2.2 cores are idle) would save" in text
    )
    assert verdict.of_run([{"epoch": 0, "train_time": 1.0}]) is None


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "0.50 s"), (3.21, "3.2 s"), (41, "41 s"), (720, "12.0 min"), (11160, "3.1 h")]
)
def test_seconds(value, text):
    assert verdict.seconds(value) == text
