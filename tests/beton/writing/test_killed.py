"""Writes that are killed, interrupted or out of disk: no file or a whole one, and the same bytes later."""

import contextlib
import functools
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.support import hooks
from tests.support.betons import DONE, LEFT, card_of, files_in, sha256, write_good, write_options
from tests.support.photos import make_folder
from tests.support.scripts import ENVIRONMENT, ROOT, Forked, forked, run_main

SKIP = {"write_mode": "proportion", "compress_probability": 0.4, "on_error": "skip"}


def start(path, data_dir=None, hook=None, **cfg) -> Forked:
    """A write under way."""
    return Forked(
        path.parent.parent / "printed", run_main, "write_dataset.py", write_options(path, data_dir, **cfg), hook
    )


def ended(path, data_dir=None, hook=None, **cfg):
    """A write at its end."""
    return forked("write_dataset.py", *write_options(path, data_dir, **cfg), hook=hook)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """150 photos, five of which cannot be read: a write takes a good part of a second."""
    folder = tmp_path_factory.mktemp("many")
    make_folder(folder, [(100 + i % 9, 130 + i % 5) for i in range(150)])
    for i in range(20, 150, 30):
        next(folder.glob(f"*/{i:03d}.png")).write_bytes(b"no photo")
    return folder


def check_killed(path, reference, data_dir, **cfg) -> bool:
    """After a kill: no .beton or a whole one, and cfg.resume ends with the same bytes. Says if it had to resume."""
    published = path.exists() and path.stat().st_ino
    assert not published or sha256(path) == reference
    done = ended(path, data_dir, **{**cfg, "resume": 1})
    assert done.returncode == 0, done.stderr
    assert not published or (path.stat().st_ino == published and "is complete already" in done.stdout)
    assert files_in(path.parent) == DONE
    assert sha256(path) == card_of(path)["sha256"] == reference
    for name in DONE:
        (path.parent / name).unlink()
    return "=> resumed after" in done.stdout


def journal_has(out, size):
    """Whether the journal has so many bytes, or the write is at its end."""
    with contextlib.suppress(FileNotFoundError):
        return (out / "a.beton").exists() or (out / LEFT[0]).stat().st_size >= size


@pytest.mark.parametrize("kills", [8, pytest.param(50, marks=pytest.mark.slow)])
def test_sigkill_at_random_moments(many, out, tmp_path, kills):
    assert ended(tmp_path / "whole.beton", many, **SKIP).returncode == 0
    reference, seconds = sha256(tmp_path / "whole.beton"), card_of(tmp_path / "whole.beton")["seconds"]
    draws, resumed, killed = random.Random(kills), 0, 0
    for number in range(kills):
        write = start(out / "a.beton", many, **SKIP)
        if number % 3 == 0:
            time.sleep(draws.uniform(0, seconds + 0.02))
        else:
            size = draws.uniform(0, 7500)  # up to about all that a whole write notes
            write.wait_for(lambda size=size: journal_has(out, size))
        write.kill()
        killed += write.end() == -signal.SIGKILL
        resumed += check_killed(out / "a.beton", reference, many, **SKIP)
    print(f"{kills} writes of {seconds:.2f} s: {killed} killed before their end, {resumed} of them resumed")
    assert killed >= kills // 2
    assert resumed >= kills // 8


def test_sigkill_before_every_step(out, tmp_path):
    """Between a payload and its step in the journal, between tables and publication, between file and card, ..."""
    make_folder(tmp_path / "photos", [(20 + i, 24 + i) for i in range(4)])
    given = {"data_dir": tmp_path / "photos", "write_mode": "jpg"}
    reference = sha256(write_good(tmp_path / "whole.beton", **given))
    for number in range(1, 100):
        done = ended(out / "a.beton", hook=functools.partial(hooks.kill_before_step, number), **given)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        check_killed(out / "a.beton", reference, **given)
    assert number > 15


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_interrupted_write_leaves_what_resume_needs(many, out, tmp_path, number, status):
    given = {"write_mode": "raw", "on_error": "skip", "resume": 1}
    reference = sha256(write_good(tmp_path / "whole.beton", many, **given))
    write = start(out / "a.beton", many, hooks.slow_write, **given)
    write.wait_for(lambda: journal_has(out, 3000))
    write.kill(number)
    assert write.end() == status
    assert files_in(out) == LEFT
    assert ("samples are kept: cfg.resume=1" in write.output) == (number != signal.SIGKILL)
    assert check_killed(out / "a.beton", reference, many, **{**given, "num_workers": 1})


FULL = """
import os, subprocess, sys
folder, *argv = sys.argv[1:]
mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
if subprocess.run(mount, capture_output=True).returncode:
    sys.exit(77)
import write_dataset
from runtime.config import run

def write(*more):  # in a process of its own
    pid = os.fork()
    if pid == 0:
        os.dup2(1, 2)
        sys.argv, code = ["write_dataset.py", *argv, *more], 0
        try:
            run(write_dataset.main, write_dataset.NAMES)
        except SystemExit as end:
            code = end.code
        sys.stdout.flush()
        os._exit(code)
    print("\\n", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), sorted(os.listdir(folder)), flush=True)

write("--cfg.resume=0")
write("--cfg.resume=1")
subprocess.run(["mount", "-o", "remount,size=100m", folder], check=True)
write("--cfg.resume=1", "--cfg.num_workers=3")
subprocess.run(["sha256sum", folder + "/a.beton"])
"""


def test_full_disk(out, tmp_path):
    """A disk of 1 MB, which grows once it has been full."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare to mount a small disk with")
    given = {"dataset": "generated", "write_mode": "jpg", "subset": 40, "chunk_size": 2}
    done = subprocess.run(
        [
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            sys.executable,
            "-c",
            FULL,
            out,
            *write_options(out / "a.beton", **given),
        ],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=250,
    )
    if done.returncode == 77 or done.stderr.startswith("unshare:"):
        pytest.skip("no disk can be mounted here")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    ends = [lines.index(f" {status} {left}") for status, left in ((2, []), (2, LEFT), (0, DONE))]
    full = f"error: cannot write {out}/a.beton (No space left on device); check the folder and its disk"
    assert full in lines[: ends[0]]
    assert full in lines[ends[0] : ends[1]]
    assert any("=> resumed after" in line for line in lines[ends[1] : ends[2]])
    assert sha256(write_good(tmp_path / "whole.beton", **given)) in lines[-1]
