"""The copy to a GPU, with streams and events that only take notes, or copies that lag: there is no GPU here."""

import random
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from beton.errors import UserError
from beton.format.fields._array_decoder import Padded
from beton.loading import buffers
from beton.loading import to_device as module
from beton.stages.normalize import NormalizeStage
from pipelines import open_pipeline
from tests.support.cuda import pretend
from tests.support.dispatch import operations
from tests.support.loaders import run_epoch, task, within

TASK = SimpleNamespace(device="cpu", float_dtype=torch.float32)


def batches(count):
    for number in range(count):
        yield torch.full((2, 3, 4, 4), number, dtype=torch.uint8), torch.tensor([number, number])


def test_a_batch_is_waited_for_and_both_tensors_are_recorded_before_it_is_handed_over(monkeypatch):
    notes = pretend(monkeypatch).notes
    for number, (images, labels) in enumerate(module.to_device(batches(3), TASK)):
        assert (images == number).all() and labels.tolist() == [number, number]
        copied = [note for note in notes if note[0] == "copied"]
        assert copied[-1][1] in (number, number + 1), "at most one is copied ahead"
        assert notes[-3:] == [("waits for", number), "recorded", "recorded"]
    assert notes[-1] == "synchronized"


def test_columns_of_all_kinds_are_copied_and_floats_keep_their_type(monkeypatch):
    """Only what normalize makes has the type of the task."""
    notes = pretend(monkeypatch).notes
    task = SimpleNamespace(device="cpu", float_dtype=torch.float16)
    target, part = torch.tensor([0.5, 1.5], dtype=torch.float64), torch.ones(2)
    batch = (target, ["a", "b"], [part, part], Padded(torch.ones(2, 3), torch.tensor([3, 1])), [{"x": [part]}, None])
    ((found, words, parts, padded, trees),) = module.to_device((batch for _ in range(1)), task, [None] * 5)
    assert torch.equal(found, target) and found.dtype == torch.float64 and words == ["a", "b"]
    assert trees == batch[4] and padded._fields == ("values", "lengths") and padded.values.dtype == torch.float32
    assert [tensor.dtype for tensor in parts] == [torch.float32] * 2 and notes.count("recorded") == 5


def test_all_epochs_use_one_stream(monkeypatch):
    notes = pretend(monkeypatch).notes
    for _ in range(4):
        assert len(list(module.to_device(batches(2), TASK))) == 2
    assert notes.count("stream made") == 1


def test_a_batch_that_is_copied_does_not_wait_for_the_next_one(monkeypatch):
    pretend(monkeypatch)
    go_on = threading.Event()

    def slow():
        for number, batch in enumerate(batches(2)):
            assert number == 0 or go_on.wait(60)
            yield batch

    copied = module.to_device(slow(), TASK)
    within(30, lambda: next(copied))
    go_on.set()
    assert within(30, lambda: len(list(copied))) == 1


def test_an_error_of_the_loader_arrives_and_leaving_early_ends_it(monkeypatch):
    pretend(monkeypatch)

    def broken():
        yield from batches(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(module.to_device(broken(), TASK))
    source = batches(9)
    copied = module.to_device(source, TASK)
    next(copied)
    copied.close()
    assert next(source, None) is None, "it was closed"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("beton-to-device")]


def arrived(numbered, monkeypatch, seed):
    """The labels and pixels of three epochs, read when all copies are over; True where they are those of the host."""
    given = {"stages": "center(8)", "batch_size": 3}  # many more batches than there is memory for
    plain = [run_epoch("beton", numbered["beton"], epoch, **given) for epoch in range(3)]
    cuda = pretend(monkeypatch, lag=random.Random(seed))
    with open_pipeline("beton", task(numbered["beton"], **given)) as pipeline:
        found = [list(pipeline.batches(epoch)) for epoch in range(3)]
    cuda.finish_events(len(cuda.events))
    pairs = zip(sum(plain, []), sum(found, []), strict=True)
    return all(torch.equal(a, b) for before, after in pairs for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_memory_is_not_used_again_before_a_lagging_copy_is_over(numbered, monkeypatch, seed):
    assert arrived(numbered, monkeypatch, seed)


def test_a_pipeline_that_does_not_hold_its_memory_is_caught(numbered, monkeypatch):
    """A test of the test above."""
    hand_over = module._hand_over
    monkeypatch.setattr(
        module, "_hand_over", lambda entry, task, held, arrived: hand_over(entry, task, module.deque(maxlen=0), arrived)
    )
    assert not arrived(numbered, monkeypatch, 0)


def test_memory_is_locked_with_its_exact_size_and_unlocked_before_it_is_freed(monkeypatch):
    locked, sizes = {}, []

    class Runtime:
        error = 0

        @classmethod
        def cudaHostRegister(cls, address, size, flags):
            locked[address] = size
            sizes.append(size)
            return cls.error

        @staticmethod
        def cudaHostUnregister(address):
            np.ctypeslib.as_array((np.ctypeslib.ctypes.c_uint8 * 1).from_address(address))[0] = 1  # it is still there
            del locked[address]

    monkeypatch.setattr(torch.cuda, "cudart", lambda: Runtime)
    pool = buffers.BufferPool((100, 7, 3), np.uint16, pinned=True)
    buffer = pool.take()
    assert buffer.shape == (100, 7, 3) and buffer.dtype == np.uint16 and sizes == [4200]
    batch = pool.hand_out(buffer, 50)
    del buffer
    assert len(locked) == 1
    del batch
    assert pool.take().base is not None and sizes == [4200], "it is used again"
    pool._free.clear()
    assert not locked
    Runtime.error = 2
    with pytest.raises(UserError, match="cannot lock 0 MB .*error 2"):
        pool.take()


def test_normalize_on_the_device_copies_nothing_there_but_once():
    stage, images = NormalizeStage(), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    stage.on_device(images, torch.float16)
    found = operations(lambda: stage.on_device(images, torch.float16))
    assert not {name for name in found if "_to_copy" in name or "lift_fresh" in name or "scalar_dense" in name}
    assert [name for name in found if "empty" not in name and "select" not in name and "unbind" not in name] == [
        "aten.addcmul.out"
    ]


def test_each_kind_of_column_stays_what_it_is():
    """Views are plain tuples, padded arrays named ones."""
    one = torch.zeros(2)
    assert module.mapped(lambda t: t + 1, (one, one))[1].tolist() == [1, 1]
    assert module.mapped(lambda t: t + 1, Padded(one, one)).lengths.tolist() == [1, 1]
    assert module.mapped(lambda t: t + 1, [one, "text"])[1] == "text"
