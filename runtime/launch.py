"""Starts the ranks of a training: this process alone, one of torchrun's, processes spawned here, or a job of Slurm."""

import contextlib
import inspect
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from beton import system
from beton.errors import UserError
from runtime import restarts
from runtime.config import one_line

# Signals that end a run with a checkpoint (runtime/training/checkpoint_manager.py); a parent forwards them to its ranks
SIGNALS = system.signals("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP")
# Seconds that the other ranks have to end by themselves when one has failed, and after SIGTERM until they are killed:
# one that waits in NCCL hears no signal. Older versions of torch send SIGTERM at once, and kill after 30 s
_GRACE = {"grace_period": 10} if "grace_period" in inspect.signature(mp.ProcessContext.join).parameters else {}
_DRIVER = Path("/proc/driver/nvidia/version")
# What gloo says of a rank whose process has ended, and of one from which nothing comes
_PEER_ENDED = ("Connection closed by peer", "Connection reset by peer")
_PEER_SILENT = ("Timed out waiting", "Connection timed out", "No route to host")
_TORCHRUN = "start with torchrun, or unset RANK and WORLD_SIZE"


@dataclass(frozen=True)
class Rank:
    """One process of a run: number `rank` of `world_size`, computing on `device`."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process logs and saves."""
        return self.rank == 0


@dataclass(frozen=True)
class Place:
    """Number of a process among `world_size`, and among those of its machine."""

    rank: int
    local_rank: int
    world_size: int


def run(function: Callable, settings, names: Mapping[str, str] = MappingProxyType({})) -> None:
    """Call function(settings, rank) in every process of the run.

    With `launch.slurm` or `launch.local` they are those of a job (runtime/slurm.py). Under torchrun this process is one
    of them already. With `training.distributed`, `dist.world_size` processes are started here, as in ffcv-imagenet;
    otherwise there is one. `names`: see runtime.config.run.
    """
    if settings.launch.slurm or settings.launch.local:
        from runtime import slurm  # submitit is needed here only

        slurm.submit(function, settings, names)
    elif "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        run_rank(function, restarts.of_torchrun(settings), names)
    elif settings.training.distributed and settings.dist.world_size > 1:
        _spawn(function, settings, names)
    else:
        if settings.data.gpu and not _uses_gpu(settings):
            raise UserError(f"there is no GPU {settings.data.gpu}", "omit data.gpu to train on the CPU")
        with _memory_errors():
            function(settings, Rank(0, 1, _device(settings, settings.data.gpu or 0)))


def run_rank(function: Callable, settings, names: Mapping[str, str], after_signal: Callable[[int], int] = int) -> None:
    """Call function(settings, rank) in this process, one of those that torchrun or Slurm has started.

    After a signal has ended it, after_signal(status) gives the status of the process.
    """
    rank, world_size = _from_torchrun("RANK"), _from_torchrun("WORLD_SIZE")
    if rank >= world_size:  # the other ranks would wait for it
        raise UserError(f"RANK={rank} is not below WORLD_SIZE={world_size}", _TORCHRUN)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if name not in os.environ:
            raise UserError(f"the environment has RANK but no {name}", _TORCHRUN)
    local_rank = _from_torchrun("LOCAL_RANK") if "LOCAL_RANK" in os.environ else rank
    _run_rank(function, settings, Place(rank, local_rank, world_size), names, after_signal)


def _from_torchrun(name: str) -> int:
    value = os.environ[name]
    if not value.isdecimal():
        raise UserError(f"{name}={value!r} in the environment is not a whole number", _TORCHRUN)
    return int(value)


def _spawn(function: Callable, settings, names: Mapping[str, str]) -> None:
    world_size, address, port = settings.dist.world_size, settings.dist.address, settings.dist.port
    _check_world_size(world_size, _uses_gpu(settings))
    _check_address(address, port)
    os.environ.update(MASTER_ADDR=address, MASTER_PORT=str(port))
    ranks = mp.spawn(_child, (function, settings, world_size, dict(names)), nprocs=world_size, join=False)

    def forward(number: int, frame) -> None:
        for rank in ranks.processes:
            if rank.is_alive():
                os.kill(rank.pid, number)

    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, forward)
    try:
        while not ranks.join(**_GRACE):
            pass
    except mp.ProcessExitedException as error:
        # The process has printed why; a signal becomes 128 + its number, as in a shell
        code = error.exit_code
        sys.exit(code if code > 0 else 128 - code)


def _check_world_size(world_size: int, gpus: bool) -> None:
    if gpus:
        device, most = "GPU", torch.cuda.device_count()
    else:  # two processes on one core are useful to try it
        device, most = "core", max(2, os.cpu_count() or 1)
    if world_size > most:
        what = f"dist.world_size={world_size} is more than {most}, one for each {device}"
        raise UserError(what, "give a smaller dist.world_size")


def _check_address(address: str, port: int) -> None:
    if not address:  # bind would use all addresses
        raise UserError("dist.address is empty", "give localhost, or the address of this machine")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            address.encode("idna")
            probe.bind((address, port))
        except (OSError, UnicodeError) as error:  # UnicodeError: impossible as a host name
            reason = getattr(error, "strerror", None) or "not a host name"
            what = f"cannot use {address}:{port} ({reason})"
            raise UserError(what, "give another dist.address or dist.port") from None


def _child(rank: int, function: Callable, settings, world_size: int, names: Mapping[str, str]) -> None:
    os.environ["LOCAL_WORLD_SIZE"] = str(world_size)  # as torchrun says it
    try:
        _run_rank(function, settings, Place(rank, rank, world_size), names)
    except UserError as error:
        leave(error, names)


def _run_rank(
    function: Callable, settings, place: Place, names: Mapping[str, str], after_signal: Callable[[int], int] = int
) -> None:
    device = _device(settings, place.local_rank)
    if device.type == "cpu":
        torch.set_num_threads(system.cores_of_rank())
    # gloo for what the ranks exchange between steps, so that none waits for its GPU
    backends = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    timeout = timedelta(seconds=settings.dist.timeout)
    numbers = {"rank": place.rank, "world_size": place.world_size}
    dist.init_process_group(backends, timeout=timeout, store=restarts.store(**numbers), **numbers)
    try:
        with _memory_errors():
            function(settings, Rank(place.rank, place.world_size, device))
    except Exception as error:  # noqa: BLE001  told, and the process ends
        leave(error, names)
    except SystemExit as end:  # after a signal; peers may wait for this rank, in NCCL for ever
        _end(after_signal(end.code))
    dist.destroy_process_group()


def leave(error: Exception, names: Mapping[str, str]) -> None:
    """Say what a rank has failed of, as runtime.config.run does, and end its process at once.

    Its peers wait for it in a collective operation: to end the process group first would wait for them.
    """
    if isinstance(error, RuntimeError) and any(text in str(error) for text in _PEER_ENDED):
        error = UserError("another rank has ended", "see its own message")
    elif isinstance(error, RuntimeError) and any(text in str(error) for text in _PEER_SILENT):
        to_do = "see whether its machine can be reached, or raise dist.timeout"
        error = UserError("another rank does not answer", to_do)
    if isinstance(error, UserError):
        print(f"error: {one_line(error, names)}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    _end(2 if isinstance(error, UserError) else 1)


def _end(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@contextlib.contextmanager
def _memory_errors():
    """Turns lack of memory, of the GPU or the machine, into a UserError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        reason = str(error).strip().splitlines() or ["no more"]
        # On a CPU torch raises a plain RuntimeError
        if not isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) and "DefaultCPUAllocator" not in reason[0]:
            raise
        to_do = "reduce training.batch_size, validation.batch_size or the resolution"
        raise UserError(f"there is not enough memory ({reason[0][:200]})", to_do) from error


def _uses_gpu(settings) -> bool:
    """Whether to train on a GPU; raises UserError where one is wanted, or is there, and cannot be used."""
    wanted = settings.training.device
    if wanted == "cpu" or torch.cuda.is_available():
        return wanted != "cpu"
    driver = _DRIVER.exists() and os.environ.get("CUDA_VISIBLE_DEVICES") != ""
    if wanted == "cuda" or (driver and torch.version.cuda):
        about = f"torch {torch.__version__}, {'an' if driver else 'no'} NVIDIA driver"
        raise UserError(f"CUDA does not start ({about})", "update the driver, or set training.device=cpu")
    return False


def _device(settings, index: int) -> torch.device:
    if not _uses_gpu(settings):
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if count == 1 and os.environ.get("LOCAL_WORLD_SIZE", "1") == "1" and "LOCAL_RANK" in os.environ:
        index = 0  # Slurm shows each task its own GPU only
    if index >= count:
        raise UserError(f"there is no GPU {index}", f"give data.gpu from 0 to {count - 1}")
    torch.cuda.set_device(index)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = bool(settings.training.tf32)
    return torch.device("cuda", index)
