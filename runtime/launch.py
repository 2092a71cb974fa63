"""Ranks: one process alone, processes that torchrun started, or processes started here."""

import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from pipelines.errors import UserError


@dataclass(frozen=True)
class Place:
    """Which of how many processes this is, and on which device it computes."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that logs and saves."""
        return self.rank == 0


def run(function: Callable, settings) -> None:
    """Call function(settings, place) in every process of the run.

    Under torchrun this process is one of them already. With `training.distributed` the
    `dist.world_size` processes are started here, as ffcv-imagenet does it; else there is one.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        _run_rank(function, settings, rank, int(os.environ.get("LOCAL_RANK", rank)), world_size)
    elif settings.training.distributed and settings.dist.world_size > 1:
        _spawn(function, settings)
    else:
        function(settings, Place(0, 1, _device(settings.data.gpu or 0)))


def _spawn(function: Callable, settings) -> None:
    world_size, address, port = settings.dist.world_size, settings.dist.address, settings.dist.port
    gpus = torch.cuda.device_count()
    if torch.cuda.is_available() and gpus < world_size:
        raise UserError(f"dist.world_size={world_size} but there are {gpus} GPUs", "give a smaller dist.world_size")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, int(port)))
        except OSError as error:
            raise UserError(f"cannot use {address}:{port} ({error.strerror})", "give another dist.port") from None
    os.environ.update(MASTER_ADDR=address, MASTER_PORT=port)
    ranks = mp.spawn(_child, (function, settings, world_size), nprocs=world_size, join=False)

    def pass_on(number: int, frame) -> None:
        for rank in ranks.processes:
            if rank.is_alive():
                os.kill(rank.pid, number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, pass_on)
    try:
        while not ranks.join():
            pass
    except mp.ProcessExitedException as error:
        # The process has said why; as a shell does, 128 + the signal that ended it
        code = error.exit_code
        sys.exit(code if code > 0 else 128 - code)


def _child(rank: int, function: Callable, settings, world_size: int) -> None:
    # As the scripts' outermost edge does it: a user error is one line
    try:
        _run_rank(function, settings, rank, rank, world_size)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(2)


def _run_rank(function: Callable, settings, rank: int, local_rank: int, world_size: int) -> None:
    device = _device(local_rank)
    if device.type == "cpu":
        # Processes on one machine share its cores
        local = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local))
    # gloo for what the ranks tell each other between steps, so that a GPU need not be waited for
    backends = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backends, rank=rank, world_size=world_size)
    try:
        function(settings, Place(rank, world_size, device))
    finally:
        dist.destroy_process_group()


def _device(index: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if index >= torch.cuda.device_count():
        raise UserError(f"there is no GPU {index}", f"give data.gpu from 0 to {torch.cuda.device_count() - 1}")
    torch.cuda.set_device(index)
    return torch.device("cuda", index)
