"""The copy to a GPU, with streams and events that only take notes: there is no GPU here."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from beton.format.fields._array_decoder import Padded
from beton.loading import to_device as module
from beton.stages.normalize import NormalizeStage
from tests.support.dispatch import operations


@pytest.fixture
def notes(monkeypatch):
    """What happens to streams and events, in order; tensors stay on the CPU."""
    found, streams = [], []

    class Stream:
        def __init__(self, device):
            found.append("stream made")
            streams.append(self)

        def synchronize(self):
            found.append("synchronized")

        def wait_event(self, event):
            found.append(("waits for", event.number))

    class Event:
        made = 0

        def __init__(self):
            self.number = Event.made
            Event.made += 1

        def record(self, stream):
            found.append(("copied", self.number))

        def query(self):
            return True

    @contextmanager
    def within(stream):
        yield

    own = Stream("the consumer's")
    found.clear()
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", within)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: own)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: found.append("recorded"))
    module._stream.cache_clear()
    yield found
    module._stream.cache_clear()


def batches(count):
    for number in range(count):
        yield torch.full((2, 3, 4, 4), number, dtype=torch.uint8), torch.tensor([number, number])


def test_a_batch_is_waited_for_and_both_tensors_are_recorded_before_it_is_handed_over(notes):
    task = SimpleNamespace(device="cpu", float_dtype=torch.float32)
    seen = []
    for number, (images, labels) in enumerate(module.to_device(batches(3), task)):
        assert (images == number).all() and labels.tolist() == [number, number]
        seen.append(list(notes))
        notes.clear()
    assert seen == [
        ["stream made", ("copied", 0), ("copied", 1), ("waits for", 0), "recorded", "recorded"],
        [("copied", 2), ("waits for", 1), "recorded", "recorded"],
        [("waits for", 2), "recorded", "recorded"],
    ]
    assert notes == ["synchronized"]


def test_columns_of_all_kinds_are_copied_and_floats_keep_their_type(notes):
    """Only what normalize makes has the type of the task."""
    task = SimpleNamespace(device="cpu", float_dtype=torch.float16)
    target, part = torch.tensor([0.5, 1.5], dtype=torch.float64), torch.ones(2)
    batch = (target, ["a", "b"], [part, part], Padded(torch.ones(2, 3), torch.tensor([3, 1])), [{"x": [part]}, None])
    ((found, words, parts, padded, trees),) = module.to_device((batch for _ in range(1)), task, [None] * 5)
    assert torch.equal(found, target) and found.dtype == torch.float64 and words == ["a", "b"]
    assert trees == batch[4] and padded._fields == ("values", "lengths") and padded.values.dtype == torch.float32
    assert [tensor.dtype for tensor in parts] == [torch.float32] * 2 and notes.count("recorded") == 5


def test_all_epochs_use_one_stream(notes):
    task = SimpleNamespace(device="cpu", float_dtype=torch.float32)
    for _ in range(4):
        assert len(list(module.to_device(batches(2), task))) == 2
    assert notes.count("stream made") == 1


def test_normalize_on_the_device_copies_nothing_there_but_once():
    stage, images = NormalizeStage(), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    stage.on_device(images, torch.float16)
    found = operations(lambda: stage.on_device(images, torch.float16))
    assert not {name for name in found if "_to_copy" in name or "lift_fresh" in name or "scalar_dense" in name}
    assert [name for name in found if "empty" not in name and "select" not in name and "unbind" not in name] == [
        "aten.addcmul.out"
    ]
