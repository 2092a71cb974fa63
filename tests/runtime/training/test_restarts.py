"""Runs that are killed, preempted or cut off, and started again by torchrun or submitit."""

import contextlib
import re
import signal

import pytest

from tests.support import hooks
from tests.support.launched import Launched, cable, kill, torchrun, two_machines, why_no_namespaces
from tests.support.scripts import free_port, options
from tests.support.training import Run, digest, log_without_times

TWO = {"training.batch_size": 4, "resolution.max_res": 32, "dist.timeout": 60}
NAMELESS = {"logging.name": None, "training.resume": None}


@pytest.fixture(scope="module")
def whole(resnet, tmp_path_factory):
    """The folder of a run of two ranks that nothing interrupted."""
    ranks = {"training.distributed": 1, "dist.world_size": 2, "dist.port": free_port()}
    run = Run(tmp_path_factory.mktemp("whole"), resnet | TWO | ranks, hook=hooks.forked_ranks)
    try:
        assert run.end() == 0, run.errors
    finally:
        run.stop()
    return run.run


def test_a_rank_killed_in_mid_epoch_under_torchrun(resnet, whole, tmp_path):
    """It has no name: a restart finds the folder by itself."""
    argv = options(resnet | TWO | NAMELESS | {"logging.folder": tmp_path / "runs"})
    words = ["--standalone", "--nproc-per-node=2", "--max-restarts=1", "train_imagenet.py"]
    with torchrun(tmp_path, *words, *argv) as run:
        run.wait_for(lambda: list(tmp_path.glob("runs/*/checkpoint.old.pt")))
        kill(run.processes()[-1])
        assert run.end() == 0, run.output
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.search(rf"=> Resuming {folder} after \d epochs and [1-9]\d* batches", run.output)
    assert digest(folder) == digest(whole)
    assert log_without_times(folder) == log_without_times(whole)


@pytest.mark.slow
def test_a_job_that_is_preempted_is_requeued_and_resumes(resnet, whole, tmp_path):
    """The signal comes to all tasks, as that of Slurm does."""
    pytest.importorskip("submitit", reason="needs the extra slurm")
    argv = options(resnet | TWO | NAMELESS | {"logging.folder": tmp_path / "runs"})
    with Launched(tmp_path, "train_imagenet.py", "--launch.local=1", "--launch.tasks=2", *argv) as job:
        job.wait_for(lambda: list(tmp_path.glob("runs/*/checkpoint.old.pt")))
        for task in job.processes("submitit.core._submit"):
            kill(task, signal.SIGUSR2)
        assert job.end() == 0, job.output
    (folder,) = (path for path in (tmp_path / "runs").iterdir() if path.name != "submitit")
    assert "Requeued job" in job.output
    assert re.search(rf"=> Resuming {folder} after \d epochs and [1-9]\d* batches", job.output)
    assert digest(folder) == digest(whole)
    assert log_without_times(folder) == log_without_times(whole)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "submitit"])
def test_one_rank_that_fails_ends_the_run_with_its_error(launcher, tmp_path):
    words = ["-m", "tests.support.one_fails", f"--logging.folder={tmp_path}"]
    if launcher == "torchrun":
        words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *words]
    else:
        pytest.importorskip("submitit", reason="needs the extra slurm")
        words += ["--launch.local=1", "--launch.tasks=2"]
    with Launched(tmp_path, *words) as run:
        assert run.end() == (1 if launcher == "torchrun" else 2), run.output
    assert "error: rank 1 is broken; repair it" in run.output
    assert "error: another rank has ended; see its own message" in run.output


@pytest.mark.slow
def test_a_machine_that_is_cut_off_and_comes_back(resnet, whole, tmp_path):
    """Two network namespaces as two machines, one of which is cut off for longer than the ranks wait for each other."""
    if why := why_no_namespaces():
        pytest.skip(why)
    given = resnet | TWO | NAMELESS | {"logging.folder": tmp_path / "runs", "dist.timeout": 20}
    with two_machines() as machines, contextlib.ExitStack() as stack:
        runs = []
        for number, (name, address, interface) in enumerate(machines):
            words = ["--nnodes=2", "--nproc-per-node=1", "--max-restarts=3", "--rdzv-id=cut", "--rdzv-backend=c10d"]
            words += [f"--rdzv-endpoint={machines[0][1]}:29400", f"--rdzv-conf=is_host={1 - number},read_timeout=120"]
            words += [f"--local-addr={address}", "train_imagenet.py", *options(given)]
            environment = {"GLOO_SOCKET_IFNAME": interface, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
            # On a core each, as the ranks of `whole`: torch's number of threads changes the last bits
            how = environment | {"before": ("ip", "netns", "exec", name), "core": number}
            run = torchrun(tmp_path / str(number), *words, **how)
            runs.append(stack.enter_context(run))
        runs[0].wait_for((tmp_path / "runs/cut/checkpoint.old.pt").exists)
        cable(machines[1], "down")
        runs[0].wait_for(lambda: "error: another rank does not answer" in runs[0].output)
        cable(machines[1], "up")
        assert [run.end() for run in runs] == [0, 0], runs[0].output + runs[1].output
    folder = tmp_path / "runs" / "cut"
    assert re.search(rf"=> Resuming {folder} after \d epochs and [1-9]\d* batches", runs[0].output + runs[1].output)
    assert digest(folder) == digest(whole)
