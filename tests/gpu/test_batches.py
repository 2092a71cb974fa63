"""The loader on a GPU, and its rehearsal on the CPU with streams that only take notes."""

import pytest
import torch

from beton.loading.buffers import BufferPool
from pipelines import open_pipeline
from tests.support.cuda import pretend
from tests.support.loaders import run_epoch, task

STAGES = {
    "pixels": "rrc(24)|flip",
    "normalize": "rrc(24)|flip|vflip|normalize",
    "erase": "rrc(24)|vflip|normalize|erase(0.5)|erase(0.5, 'rand')",
}


class Poisoned(list):
    """Memory that nobody uses any more, of which nothing is left."""

    def append(self, buffer):
        buffer[...] = 77
        super().append(buffer)


def three_epochs(path, stages, dtype, device):
    """The batches of three epochs, read late, in the host's memory."""
    with open_pipeline("beton", task(path, stages, batch_size=3, dtype=dtype, device=device)) as pipeline:
        for epoch in range(3):
            batches = []
            for batch in pipeline.batches(epoch):
                if device == "cuda":
                    torch.cuda._sleep(3_000_000)  # cycles: what follows on this stream is done some ms later
                batches.append([tensor.clone() for tensor in batch])
            yield [[tensor.cpu() for tensor in batch] for batch in batches]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("stages", STAGES)
def test_batches_are_those_of_the_cpu(numbered, device, monkeypatch, stages, dtype):
    """Though memory that is free is poisoned, and the consumer is slow."""
    path, stages = numbered["beton"], STAGES[stages]
    expected = [run_epoch("beton", path, epoch, stages=stages, batch_size=3, dtype=dtype) for epoch in range(3)]
    made = BufferPool.__init__

    def init(pool, *given, **named):
        made(pool, *given, **named)
        pool._free = Poisoned()

    monkeypatch.setattr(BufferPool, "__init__", init)
    if device == "cpu":
        pretend(monkeypatch)
    for before, after in zip(expected, three_epochs(path, stages, dtype, device), strict=True):
        assert len(before) == len(after) == 15
        for (images, labels), (found, numbers) in zip(before, after, strict=True):
            assert torch.equal(labels, numbers)
            assert found.dtype == images.dtype and found.is_contiguous(memory_format=torch.channels_last)
            close = 1e-2 if found.is_floating_point() else 0
            torch.testing.assert_close(found, images, rtol=close, atol=close)


@pytest.mark.gpu
def test_stock_ffcv_copies_to_the_gpu(numbered):
    pytest.importorskip("ffcv")
    given = {"stages": "center(24, ratio=0.875)|normalize", "shuffle": False, "drop_last": False}
    expected = run_epoch("ffcv", numbered["beton"], **given)
    found = run_epoch("ffcv", numbered["beton"], **given, device="cuda", dtype=torch.float16)
    for (images, labels), (there, numbers) in zip(expected, found, strict=True):
        assert torch.equal(numbers.cpu(), labels) and there.dtype == torch.float16
        torch.testing.assert_close(there.cpu().float(), images, rtol=1e-2, atol=1e-2)


@pytest.mark.gpu
def test_memory_of_the_gpu_stays_the_same_from_the_second_epoch_on(numbered):
    reserved = []
    with open_pipeline("beton", task(numbered["beton"], "rrc(224)|flip|normalize", device="cuda")) as pipeline:
        for epoch in range(5):
            for images, _ in pipeline.batches(epoch):
                images.mean()
            torch.cuda.synchronize()
            reserved.append(torch.cuda.memory_reserved())
    assert reserved[1:] == reserved[1:2] * 4
