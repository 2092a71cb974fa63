"""Batch norm over all ranks, on CPUs: as one process that has the whole batch, forwards and backwards."""

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import nn

from runtime.training.sync_bn import synchronised
from tests.support.scripts import Forked, free_port


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3), BatchNormAct2d(6), nn.Flatten(), nn.Linear(96, 5),
        nn.BatchNorm1d(5, momentum=None, affine=False),
    ).double()  # fmt: skip


def images():
    return torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.double) * 3 + 10


def trained(model, batch):
    """Gradients of a loss that is the mean over the batch, after two steps' statistics."""
    for _ in range(2):
        model.zero_grad()
        (model(batch) ** 3).sum(1).mean().backward()
    return [parameter.grad for parameter in model.parameters()]


def rank_of_three(rank, port, folder):
    dist.init_process_group("gloo", init_method=f"tcp://localhost:{port}", rank=rank, world_size=3)
    torch.set_num_threads(1)
    model = synchronised(network(), torch.device("cpu"))
    names = list(model.state_dict())
    gradients = trained(model, images()[4 * rank : 4 * rank + 4])
    for gradient in gradients:  # as DistributedDataParallel does
        dist.all_reduce(gradient)
    outputs = model.eval()(images())
    if rank == 0:
        means = [gradient / 3 for gradient in gradients]
        torch.save({"names": names, "gradients": means, "state": model.state_dict(), "outputs": outputs}, folder)
    dist.destroy_process_group()


def three_ranks(port, folder):
    torch.multiprocessing.start_processes(rank_of_three, (port, folder), 3, start_method="fork")


def test_three_ranks_are_as_one(tmp_path):
    process = Forked(tmp_path / "out", three_ranks, free_port(), str(tmp_path / "rank"))
    try:
        assert process.end() == 0, process.errors
    finally:
        process.stop()
    found = torch.load(tmp_path / "rank")
    alone = network()
    expected = trained(alone, images())
    assert found["names"] == list(alone.state_dict()), "weights must load into the plain model"
    for ours, theirs in zip(found["gradients"], expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(found["state"][name], value, rtol=1e-9, atol=1e-9, msg=name)
    torch.testing.assert_close(found["outputs"], alone.eval()(images()), rtol=1e-9, atol=1e-9)
