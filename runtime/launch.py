"""Ranks: one process alone, processes that torchrun started, or processes started here."""

import contextlib
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
from runtime.config import one_line

# What ends a run with a checkpoint (runtime/interrupt.py); whoever started ranks passes them on
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
_TORCHRUN = "start with torchrun, or unset RANK and WORLD_SIZE"


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
        rank, world_size = _from_torchrun("RANK"), _from_torchrun("WORLD_SIZE")
        if rank >= world_size:  # the others would wait for it
            raise UserError(f"RANK={rank} is not below WORLD_SIZE={world_size}", _TORCHRUN)
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            if name not in os.environ:
                raise UserError(f"there is RANK in the environment but no {name}", _TORCHRUN)
        local_rank = _from_torchrun("LOCAL_RANK") if "LOCAL_RANK" in os.environ else rank
        _run_rank(function, settings, rank, local_rank, world_size)
    elif settings.training.distributed and settings.dist.world_size > 1:
        _spawn(function, settings)
    else:
        if settings.data.gpu and not torch.cuda.is_available():
            raise UserError(f"there is no GPU {settings.data.gpu}", "leave data.gpu out to train on the CPU")
        with _enough_memory():
            function(settings, Place(0, 1, _device(settings.data.gpu or 0)))


def _from_torchrun(name: str) -> int:
    value = os.environ[name]
    if not value.isdecimal():
        raise UserError(f"{name}={value!r} in the environment is not a whole number", _TORCHRUN)
    return int(value)


def _spawn(function: Callable, settings) -> None:
    world_size, address, port = settings.dist.world_size, settings.dist.address, settings.dist.port
    if not address:  # bind takes it for all addresses
        raise UserError("dist.address is empty", "give localhost, or the address of this machine")
    if torch.cuda.is_available():
        device, most = "GPU", torch.cuda.device_count()
    else:  # two on one core are of use to see how it works
        device, most = "core", max(2, os.cpu_count() or 1)
    if world_size > most:
        what = f"dist.world_size={world_size} is more than {most}, one for each {device}"
        raise UserError(what, "give a smaller dist.world_size")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            address.encode("idna")
            probe.bind((address, port))
        except (OSError, UnicodeError) as error:  # the latter: a name that cannot be one of a host
            reason = getattr(error, "strerror", None) or "no name of a host"
            what = f"cannot use {address}:{port} ({reason})"
            raise UserError(what, "give another dist.address or dist.port") from None
    os.environ.update(MASTER_ADDR=address, MASTER_PORT=str(port))
    ranks = mp.spawn(_child, (function, settings, world_size), nprocs=world_size, join=False)

    def pass_on(number: int, frame) -> None:
        for rank in ranks.processes:
            if rank.is_alive():
                os.kill(rank.pid, number)

    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
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
        print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
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
        with _enough_memory():
            function(settings, Place(rank, world_size, device))
    except RuntimeError as error:
        if "Connection closed by peer" not in str(error):
            raise
        raise UserError("another rank has ended", "its own message says why") from error
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def _enough_memory():
    """What a GPU or the machine has not is the user's to mend."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        reason = str(error).strip().splitlines() or ["no more"]
        # On a CPU torch raises nothing of its own
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and "DefaultCPUAllocator" not in reason[0]:
            raise
        to_do = "make training.batch_size, validation.batch_size or the resolution smaller"
        raise UserError(f"there is not enough memory ({reason[0][:200]})", to_do) from error


def _device(index: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if index >= torch.cuda.device_count():
        raise UserError(f"there is no GPU {index}", f"give data.gpu from 0 to {torch.cuda.device_count() - 1}")
    torch.cuda.set_device(index)
    return torch.device("cuda", index)
