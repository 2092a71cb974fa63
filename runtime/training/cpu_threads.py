"""torch's threads on a CPU that others use too: as many as there are cores left.

The threads of one operation wait for each other at its end. Where one of them shares its core with another busy
process, all wait for that one: a step of ResNet-18 takes 5 to 20 times as long on two cores, one of which is taken,
and less than 2 times as long with one thread. So the load that others put on the cores of this process is looked at
now and then.
"""

import os
import time
from pathlib import Path

import torch

_SECONDS = 2.0  # between two looks
_STAT = Path("/proc/stat")


class CpuThreads:
    """Follows the load while a model is trained on a CPU; `count`: torch's threads now.

    `fixed`: a number of threads instead, or None. Does nothing where the load cannot be read (not Linux) or where there
    is one thread from the start.
    """

    def __init__(self, fixed: int | None = None):
        if fixed is not None:
            torch.set_num_threads(fixed)
        self.count = self.most = torch.get_num_threads()
        self._follows = fixed is None and self.most > 1 and _STAT.exists()
        self._looked_at, self._busy = time.monotonic(), self._busy_seconds()
        self._reported = False

    def step_ended(self) -> None:
        """Look at the load if it is time, and set torch's number of threads."""
        now = time.monotonic()
        if not self._follows or now - self._looked_at < _SECONDS:
            return
        busy = self._busy_seconds()
        others = (busy - self._busy) / (now - self._looked_at)
        self._looked_at, self._busy = now, busy
        count = threads_beside(others, self.most)
        if count == self.count:
            return
        torch.set_num_threads(count)
        self.count = count
        if not self._reported:
            print(f"=> torch uses {count} of {self.most} threads: others keep {others:.1f} of the cores busy")
            self._reported = True

    def _busy_seconds(self) -> float:
        """Seconds for which others have used the cores of this process, since the machine was started."""
        if not self._follows:
            return 0.0
        own = time.process_time()
        return busy_seconds(_STAT.read_text(), os.sched_getaffinity(0)) - own


def busy_seconds(stat: str, cores: set[int]) -> float:
    """Seconds for which these cores were busy, by the content of /proc/stat (proc(5)): all but idle and iowait."""
    total = 0
    for line in stat.splitlines():
        name, *ticks = line.split()
        if name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in cores:
            user, nice, system, _, _, irq, softirq, steal = map(int, ticks[:8])
            total += user + nice + system + irq + softirq + steal
    return total / os.sysconf("SC_CLK_TCK")


def busy_seconds_of_all() -> float | None:
    """Seconds for which the cores of this process were busy, whoever used them; None where that cannot be read."""
    return busy_seconds(_STAT.read_text(), os.sched_getaffinity(0)) if _STAT.exists() else None


def idle_cores(busy: float | None, since: float) -> float | None:
    """How many cores of this process were idle on average; None where that cannot be read.

    `busy`: what busy_seconds_of_all() was at `since` (seconds of time.perf_counter).
    """
    passed = time.perf_counter() - since
    if busy is None or passed <= 0:
        return None
    cores = len(os.sched_getaffinity(0))
    return min(max(cores - (busy_seconds_of_all() - busy) / passed, 0.0), float(cores))


def threads_beside(others: float, most: int) -> int:
    """Threads to use where others keep so many of `most` cores busy."""
    return min(most, max(1, round(most - others)))
