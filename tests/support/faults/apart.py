"""Scenarios of faults in processes of their own, with an eye on them: what hangs or dies has an outcome too."""

import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from tests.support.faults.table import Fault, Outcome
from tests.support.scripts import Forked

# Something hangs when neither it nor what it started has used the processor for so long; or has used it for far more
# than anything here takes (compiling is the longest). On a busy machine both take longer, and mean the same.
_IDLE, _IDLE_SHARE, _MOST_CPU = 5, 0.1, 15


def play_apart(fault: Fault, side: str, folder: Path) -> Outcome:
    """The outcome; whatever the scenario has started is gone then."""
    process = Forked(folder / ".process", _play, fault.name, side, str(folder))
    hangs = _watch(process)
    _end_group(process.pid)
    code, outcome = process.end(), folder / ".outcome"
    if hangs:
        return Outcome("hangs", hangs)
    if not outcome.exists():
        return Outcome("aborts", signal.Signals(-code).name if code < 0 else f"status {code}")
    return Outcome(**json.loads(outcome.read_text()))


def _play(name: str, side: str, folder: str) -> None:
    from tests.support.faults import named
    from tests.support.faults.table import play

    outcome = play(named(name), side, Path(folder))
    part = Path(folder, ".part of outcome")
    part.write_text(json.dumps({"kind": outcome.kind, "text": outcome.text}))
    part.rename(part.with_name(".outcome"))
    sys.stderr.flush()
    os._exit(0)


def _watch(process: Forked) -> str:
    """Wait for the end of a process; or how it hangs."""
    busy_at, busy_cpu = time.monotonic(), 0.0
    while process.is_running:
        now, cpu = time.monotonic(), _cpu(process.pid)
        if cpu - busy_cpu > _IDLE_SHARE * _IDLE:
            busy_at, busy_cpu = now, cpu
        if now - busy_at > _IDLE:
            return f"waits, {cpu:.1f} s of CPU"
        if cpu > _MOST_CPU:
            return f"turns in circles, {cpu:.1f} s of CPU"
        time.sleep(0.02)
    return ""


def _cpu(pid: int) -> float:
    """Seconds that a process and all below it have used."""
    total = 0.0
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                total += sum(one.cpu_times()[:4])
    return total


def _end_group(group: int) -> None:
    """End all processes of a group.

    SIGTERM first: it leaves the process that then removes the shared memory of the others (multiprocessing's tracker).
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(group, number)
        deadline = time.monotonic() + 3
        while _members(group) and time.monotonic() < deadline:
            time.sleep(0.02)


def _members(group: int) -> list[int]:
    """Processes of a group that have not ended."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found
