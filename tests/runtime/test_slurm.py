"""Jobs of Slurm: what submitit gives to sbatch, and what is refused. That a job resumes: training/test_restarts.py."""

import os
import pickle

import pytest
import torch.distributed.run

from tests.support.scripts import ROOT, assert_user_error, here, options, wrong

SCRIPT = "train_transformers.py"
NEEDED = {
    "data.train_dataset": "t.beton",
    "data.val_dataset": "v.beton",
    "data.num_workers": 12,
    "data.in_memory": 1,
    "logging.folder": "runs",
}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A folder for runs, on a machine that has sbatch and srun; sbatch takes every job."""
    pytest.importorskip("submitit", reason="needs the extra slurm")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("sbatch", "echo Submitted batch job 4711"), ("srun", "exit 1")):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setenv("PYTHONPATH", "")
    return tmp_path


def test_fastervit_on_4_nodes_of_8_gpus(cluster):
    recipes = ["vit_configs/fastervit/faster_vit_4.yaml", "launch_configs/slurm_4x8.yaml"]
    given = {"launch.partition": "gpu", "launch.account": "mine", "launch.setup": "module load cuda"}
    given |= {"launch.sbatch": "--qos=low --exclude=n1,n2 --exclusive", "logging.folder": cluster / "runs"}
    files = [f"--config-file={ROOT / recipe}" for recipe in recipes]
    done = here(SCRIPT, *files, *options(NEEDED | given))
    assert done.returncode == 0, done.stderr
    assert "=> Job 4711: 32 ranks, log in " in done.stdout
    folder = cluster / "runs" / "submitit"
    script = (folder / "4711_submission.sh").read_text()
    expected = ["nodes=4", "ntasks-per-node=8", "gpus-per-node=8", "cpus-per-task=12", "signal=USR2@180", "requeue"]
    expected += ["time=1440", "partition=gpu", "account=mine", "qos=low", "exclude=n1,n2", "exclusive"]
    for word in expected:
        assert f"#SBATCH --{word}\n" in script, word
    assert "\nmodule load cuda\n" in script and " --kill-on-bad-exit=1 " in script
    job = pickle.loads((folder / "4711_submitted.pkl").read_bytes()).function
    settings = job.settings
    assert settings.training.batch_size * 32 == 4096
    assert settings.training.resume == "auto", "or a requeue would begin anew"
    assert f"=> Run {settings.logging.folder}/{settings.logging.name}\n" in done.stdout
    assert job.checkpoint().function is job


def test_what_cannot_be_submitted(cluster, monkeypatch):
    job = NEEDED | {"logging.folder": cluster / "runs", "launch.slurm": 1}
    cases = [
        ({"launch.local": 1}, ["launch.slurm", "launch.local"]),
        ({"launch.slurm": 0, "launch.local": 1, "launch.nodes": 2}, ["launch.local", "launch.nodes=1"]),
        ({"launch.gpus": 2, "launch.tasks": 3}, ["launch.tasks=3", "launch.gpus=2"]),
        ({"launch.gpus": 8, "dist.world_size": 32}, ["dist.world_size=32", "8 ranks"]),
        ({"launch.sbatch": "qos=low"}, ["'qos=low'", "launch.sbatch"]),
        ({"launch.sbatch": "--comment='a"}, ["launch.sbatch"]),
        ({"logging.folder": "/dev/null"}, ["/dev/null"]),
    ]
    assert not wrong((SCRIPT, options(job | changes), words) for changes, words in cases)
    (cluster / "bin" / "sbatch").write_text("#!/bin/sh\necho Invalid account >&2\nexit 1\n")
    done = here(SCRIPT, *options(job))  # submitit shows what sbatch says, too
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: sbatch has refused the job (Invalid account); see its message"
    (cluster / "bin" / "srun").unlink()
    assert_user_error(here(SCRIPT, *options(job)), "srun", "launch.local=1")
    monkeypatch.setenv("RANK", "0")
    assert_user_error(here(SCRIPT, *options(job)), "launch.slurm", "torchrun")


def test_the_commands_of_the_page_are_understood():
    """docs/launching.md: the options of torchrun, of the trainers, and the files that they name."""
    import importlib
    import re
    import shlex

    from runtime.config import parse

    text = (ROOT / "docs" / "launching.md").read_text().replace("\\\n", " ")
    commands = [line for line in text.splitlines() if line.startswith("    ") and ".py " in line]
    assert len(commands) >= 6
    for command in commands:
        words = shlex.split(command)
        at = next(i for i, word in enumerate(words) if re.fullmatch(r"train_\w+\.py", word))
        trainer = importlib.import_module(words[at].removesuffix(".py"))
        parse(trainer.declare(), [*options(NEEDED), *words[at + 1 :]])
        if "torchrun" in words:
            variables = [os.path.expandvars(word).replace("$SLURM_NNODES", "2") for word in words]
            torch.distributed.run.get_args_parser().parse_args(variables[words.index("torchrun") + 1 :])
