"""A training as a job of Slurm, by submitit; or of this machine, by submitit's local executor.

Each task of the job is a rank. Before a preemption and before the time limit Slurm sends a signal to all of them
(submitit's SIGUSR2): they write a checkpoint after their step, rank 0 has the job requeued by submitit, and started
again it goes on from there.
"""

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from beton.errors import UserError
from runtime import launch, restarts
from runtime.config import Settings
from runtime.outputs import make_folder
from runtime.training.run_folder import new_name

_ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Training:
    """What each task runs: function(settings, rank). Submitit keeps it in a file, and reads it anew after a requeue."""

    function: Callable
    settings: Settings
    names: dict[str, str]

    def __call__(self) -> None:
        from submitit.helpers import TorchDistributedEnvironment

        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        try:
            launch.run_rank(self.function, self.settings, self.names, _after_signal)
        except UserError as error:
            launch.leave(error, self.names)

    def checkpoint(self):
        """What is to run after the requeue (submitit calls it in rank 0): the same, as it resumes by itself."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _after_signal(status: int) -> int:
    """The status of a task that has written its checkpoint; rank 0 has the job requeued if the signal asks for it."""
    from submitit import JobEnvironment

    number = signal.Signals[f"SIG{JobEnvironment.USR_SIG}"]
    if status != 128 + number:
        return status
    try:
        signal.raise_signal(number)  # to submitit, whose handler is in place again
    except SystemExit as end:
        return end.code % 256
    return 0  # of another rank: a status other than 0 would end rank 0 before it has done so


def submit(function: Callable, settings: Settings, names) -> None:
    """Submit function(settings, rank) for every rank, and say where its log is; of launch.local wait for the end.

    Raises UserError when it cannot be submitted, and SystemExit when a job of this machine has failed.
    """
    try:
        import submitit
    except ImportError:
        raise UserError("launch.slurm needs submitit", "pip install 'ffcv-toolkit[slurm]'") from None
    _check(settings)
    asked, local = settings.launch, bool(settings.launch.local)
    settings = restarts.continued(settings, new_name(), "launch")
    settings = settings.replaced({"launch.slurm": False, "launch.local": False}, "launch")
    parameters = _parameters(settings, asked, local)
    folder = Path(settings.logging.folder or ".") / "submitit"
    make_folder(folder)
    try:
        executor = submitit.AutoExecutor(
            folder,
            "local" if local else "slurm",
            slurm_max_num_timeout=asked.requeues,
            local_max_num_timeout=asked.requeues,
        )
    except RuntimeError as error:  # no srun
        to_do = "start it on a machine of the cluster, or try it with launch.local=1"
        raise UserError(f"cannot submit to Slurm ({error})", to_do) from None
    executor.update_parameters(**parameters)
    # A task is a Python of its own, started in this folder
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        job = executor.submit(Training(function, settings, dict(names)))
    except submitit.core.utils.FailedJobError as error:
        raise UserError(f"sbatch has refused the job ({' '.join(str(error).split())})", "see its message") from None
    print(f"=> Job {job.job_id}: {_ranks(asked) * asked.nodes} ranks, log in {job.paths.stdout}", flush=True)
    if settings.logging.folder and not settings.training.eval_only:
        print(f"=> Run {settings.logging.folder}/{settings.logging.name}", flush=True)
    if local:
        _wait(job)


def _ranks(asked) -> int:
    """Ranks on each machine."""
    return asked.tasks or max(1, asked.gpus)


def _check(settings) -> None:
    asked, world_size = settings.launch, settings.launch.nodes * _ranks(settings.launch)
    if "RANK" in os.environ:
        raise UserError("launch.slurm starts the ranks itself", "start the script without torchrun and srun")
    if asked.slurm and asked.local:
        raise UserError("launch.slurm and launch.local are both set", "give one of them")
    if asked.local and asked.nodes > 1:
        raise UserError(f"launch.local is one machine, not {asked.nodes}", "give launch.nodes=1")
    if asked.gpus and _ranks(asked) > asked.gpus:
        raise UserError(f"launch.tasks={asked.tasks} is more than launch.gpus={asked.gpus}", "give a GPU for each rank")
    if settings.origin["dist.world_size"] != "default" and settings.dist.world_size != world_size:
        what = f"dist.world_size={settings.dist.world_size}, but launch.nodes and launch.gpus make {world_size} ranks"
        raise UserError(what, "make them equal, as the batch depends on them")


def _parameters(settings, asked, local: bool) -> dict:
    """Submitit's parameters."""
    both = {
        "name": settings.logging.name or "evaluation",
        "nodes": asked.nodes,
        "tasks_per_node": _ranks(asked),
        "timeout_min": asked.minutes,
    } | ({"gpus_per_node": asked.gpus} if asked.gpus else {})
    if local:
        return both
    setup = [f"export PYTHONPATH={shlex.quote(str(_ROOT))}:$PYTHONPATH"]
    more = {
        "cpus_per_task": asked.cpus or settings.data.num_workers,
        "mem_gb": asked.memory,
        "slurm_signal_delay_s": asked.signal_seconds,
        "slurm_partition": asked.partition,
        "slurm_account": asked.account,
        "slurm_setup": setup + ([asked.setup] if asked.setup else []),
        # One rank that fails ends the others, which may wait for it in NCCL
        "slurm_srun_args": ["--kill-on-bad-exit=1"],
        "slurm_additional_parameters": {"requeue": True} | _sbatch(asked.sbatch),
    }
    return both | {name: value for name, value in more.items() if value is not None}


def _sbatch(text: str) -> dict[str, str | bool]:
    """'--qos=low --exclusive' -> {'qos': 'low', 'exclusive': True}."""
    found = {}
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UserError(f"launch.sbatch={text!r} cannot be read ({error})", "write '--qos=low --exclusive'") from None
    for word in words:
        name, equals, value = word.partition("=")
        if not name.startswith("--") or len(name) < 4:
            raise UserError(f"'{word}' in launch.sbatch is no option", "write '--qos=low --exclusive'")
        found[name[2:]] = value if equals else True
    return found


def _wait(job) -> None:
    """Until a job of this machine has ended; signals are forwarded to its ranks."""
    received = []

    def forward(number: int, frame) -> None:
        received.append(number)
        os.kill(int(job.job_id), signal.SIGTERM)  # to submitit's process, which forwards this one

    for number in launch.SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, forward)
    while not job.done():
        time.sleep(0.2)
    print((job.task(0).stdout() or "").rstrip(), flush=True)
    failed = [task for task in map(job.task, range(job.num_tasks)) if not task.paths.result_pickle.exists()]
    if failed:
        errors = "".join(task.stderr() or "" for task in failed)
        print(errors.rstrip(), file=sys.stderr, flush=True)
        if received:
            sys.exit(128 + received[0])
        sys.exit(2 if "error: " in errors and "Traceback" not in errors else 1)
