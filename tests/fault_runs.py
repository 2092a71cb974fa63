"""Scenarios of faults.py in processes of their own, with an eye on them: what hangs or dies has an outcome too.

    python tests/fault_runs.py

is the server: it has imported what takes long, and forks a child for each line `side fault folder` that it reads.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

TESTS = Path(__file__).resolve().parent
# Something hangs when neither it nor what it started has used the processor for so long; or has used it for far more
# than anything here takes (compiling is the longest). On a busy machine both take longer, and mean the same.
_IDLE, _IDLE_SHARE, _MOST_CPU = 5, 0.1, 15
_OUTCOME = "outcome.json"


class Server:
    """Runs scenarios, one at a time; close() it."""

    def __init__(self):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
        pipe = subprocess.PIPE
        command = [sys.executable, str(TESTS / "fault_runs.py")]
        self._server = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)

    def run(self, side: str, fault: str, folder: Path) -> dict:
        """The outcome as a dict: kind, text. Whatever the scenario has started is gone then."""
        print(side, fault, folder, file=self._server.stdin, flush=True)
        pid = int(self._server.stdout.readline())
        hangs = self._watch(pid)
        _end_group(pid)
        print(file=self._server.stdin, flush=True)
        code = int(self._server.stdout.readline())
        if hangs:
            return {"kind": "hangs", "text": hangs}
        if not (folder / _OUTCOME).exists():
            return {"kind": "aborts", "text": signal.Signals(-code).name if code < 0 else f"status {code}"}
        return json.loads((folder / _OUTCOME).read_text())

    def _watch(self, pid: int) -> str:
        """Wait for the end of a process; or how it hangs."""
        busy_at, busy_cpu = time.monotonic(), 0.0
        while (cpu := _cpu(pid)) is not None:
            now = time.monotonic()
            if cpu - busy_cpu > _IDLE_SHARE * _IDLE:
                busy_at, busy_cpu = now, cpu
            if now - busy_at > _IDLE:
                return f"waits, {cpu:.1f} s of CPU"
            if cpu > _MOST_CPU:
                return f"turns in circles, {cpu:.1f} s of CPU"
            time.sleep(0.05)
        return ""

    def close(self) -> None:
        """End the server."""
        self._server.stdin.close()
        self._server.wait(timeout=20)


def _cpu(pid: int) -> float | None:
    """Seconds that a process and all below it have used; None when it has ended."""
    total = 0.0
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        for one in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                total += sum(one.cpu_times()[:4])
        return total
    return None


def _end_group(group: int) -> None:
    """End all processes of a group.

    SIGTERM first: it leaves the process that then removes the shared memory of the others (multiprocessing's tracker).
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(group, number)
        deadline = time.monotonic() + 3
        while members(group) and time.monotonic() < deadline:
            time.sleep(0.02)


def members(group: int) -> list[int]:
    """Processes of a group that have not ended."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def _child(side: str, fault: str, folder: Path) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    for name, number in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    import faults
    from fault_table import play

    outcome = play(faults.named(fault), side, folder)
    (folder / ".outcome").write_text(json.dumps({"kind": outcome.kind, "text": outcome.text}))
    os.replace(folder / ".outcome", folder / _OUTCOME)
    sys.stderr.flush()
    os._exit(0)


def serve() -> None:
    """Fork a child for each line; the next line asks for its end."""
    import cv2  # noqa: F401
    import fastargs  # noqa: F401
    import numba  # noqa: F401
    import torch  # noqa: F401

    while line := sys.stdin.readline():
        side, fault, folder = line.split(maxsplit=2)
        pid = os.fork()
        if pid == 0:
            _child(side, fault, Path(folder.strip()))
        print(pid, flush=True)
        if not sys.stdin.readline():  # the tests are gone
            os.killpg(pid, signal.SIGKILL)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
