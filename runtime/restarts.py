"""Runs that torchrun or Slurm starts again: they find their folder, and go on from its last checkpoint."""

import os
import re
import time
from datetime import timedelta

import psutil
import torch.distributed as dist

from beton.errors import UserError
from runtime.config import Settings

# For the ranks to meet after their imports, whatever dist.timeout is
_MEETING = timedelta(minutes=10)


def continued(settings: Settings, name: str, origin: str) -> Settings:
    """The settings with which each start of a run but the first resumes it: a name of its folder, training.resume=auto.

    What is given already stays. `origin` says in params.json where the others come from.
    """
    if settings.training.eval_only:
        return settings
    values = {} if settings.logging.name else {"logging.name": name}
    if not settings.training.resume:
        values["training.resume"] = "auto"
    return settings.replaced(values, origin)


def of_torchrun(settings: Settings) -> Settings:
    """The settings of a rank that torchrun has started, where it may start it again.

    That is with --max-restarts, and on several machines with --rdzv-id, by which the run is named then. The number of
    restarts so far does not tell whether this is the first start: a machine that joins restarts the others' ranks, too.
    Raises UserError when a restart could not find the run.
    """
    run_id = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    machines = int(os.environ.get("GROUP_WORLD_SIZE", "1"))
    restarts = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))
    if machines > 1 and restarts and _shares_store():
        what = "after a restart the machines could meet the addresses of the start before"
        raise UserError(what, "set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun, with --rdzv-backend=c10d")
    if machines > 1 and run_id != "none":
        return continued(settings, re.sub(r"[^\w.-]", "-", run_id), "torchrun")
    if not restarts:
        return settings
    if machines > 1 and not settings.logging.name and not settings.training.eval_only:
        what = "a restart could not find the run: it has no name"
        raise UserError(what, "give logging.name, or torchrun --rdzv-id=NAME")
    # torchrun itself is not started again; its start is the same for all its ranks
    agent = psutil.Process(os.getppid())
    started = time.strftime("%Y%m%d-%H%M%S", time.localtime(agent.create_time()))
    return continued(settings, f"{started}-{agent.pid}", "torchrun")


def _shares_store() -> bool:
    """Whether the ranks meet in torchrun's store, in which what they wrote before a restart still is.

    A rank may read there where another one was before, and fail to connect (github.com/pytorch/pytorch/issues/135712).
    """
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def store(rank: int, world_size: int) -> dist.Store:
    """Where the ranks of one start meet: MASTER_ADDR and MASTER_PORT, as torch has it, but apart from earlier starts.

    On several machines the number of restarts is not the same everywhere, so that starts cannot be told apart by it.
    Raises UserError when the ranks do not come together.
    """
    address, port, shared = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), _shares_store()
    try:
        here = dist.TCPStore(address, port, world_size, rank == 0 and not shared, _MEETING, multi_tenant=True)
    except RuntimeError as error:  # some have not come
        reason = str(error).splitlines()[0]
        what = f"rank {rank} of {world_size} does not meet the others at {address}:{port} ({reason})"
        raise UserError(what, "see whether all were started, and whether their machines reach each other") from None
    if shared and os.environ.get("GROUP_WORLD_SIZE") == "1":
        return dist.PrefixStore(f"start {os.environ['TORCHELASTIC_RESTART_COUNT']}", here)
    return here
