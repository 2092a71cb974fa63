"""What ranks do in the tests of runtime.launch; processes that are spawned import it."""

import signal
import sys
import time
from types import SimpleNamespace as Settings

import torch.distributed as dist

from beton.errors import UserError
from runtime import config, launch
from tests.support import hooks


def start(how: str, port: int, forked: bool) -> None:
    """Two ranks that do what the function `how` of this file does."""
    if forked:
        hooks.forked_ranks("")
    training, job = Settings(distributed=1, device="cpu", tf32=1), Settings(slurm=0, local=0)
    there = Settings(world_size=2, address="localhost", port=port, timeout=600)
    settings = Settings(training=training, dist=there, data=Settings(gpu=0), launch=job)
    config.run(lambda argv: launch.run(globals()[how], settings))


def one_fails(settings, rank) -> None:
    """Rank 1 fails while rank 0 waits for it, and to end the process group waits for ever, as NCCL's may."""
    dist.destroy_process_group = lambda: time.sleep(10_000)
    if rank.rank == 1:
        raise UserError("rank 1 is broken", "repair it")
    dist.barrier()


def one_has_a_bug(settings, rank) -> None:
    """The same with an error of the program."""
    dist.destroy_process_group = lambda: time.sleep(10_000)
    if rank.rank == 1:
        raise ZeroDivisionError("a bug")
    dist.barrier()


def all_leave_after_a_signal(settings, rank) -> None:
    """Each by itself, as from a validation."""
    dist.destroy_process_group = lambda: time.sleep(10_000)
    print("interrupted", file=sys.stderr)
    raise SystemExit(143)


def one_fails_and_one_hears_nothing(settings, rank) -> None:
    """Rank 0 waits in a way that no signal but SIGKILL ends, as in NCCL."""
    if rank.rank == 1:
        raise UserError("rank 1 is broken", "repair it")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(10_000)
