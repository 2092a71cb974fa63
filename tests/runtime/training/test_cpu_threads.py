"""torch's threads follow the load that others put on the cores."""

import pytest
import torch

from runtime.training import cpu_threads
from runtime.training.cpu_threads import CpuThreads, busy_seconds, threads_beside

STAT = """cpu  900 0 0 0 0 0 0 0 0 0
cpu0 100 20 30 5000 70 1 2 3 0 0
cpu1 200 0 0 6000 0 0 0 0 0 0
cpu10 400 0 0 0 0 0 0 0 0 0
intr 12345
"""


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_busy_seconds_are_all_but_idle_and_waiting_for_disks(monkeypatch):
    monkeypatch.setattr(cpu_threads.os, "sysconf", lambda name: 100)
    assert busy_seconds(STAT, {0}) == pytest.approx(1.56)
    assert busy_seconds(STAT, {0, 1}) == pytest.approx(3.56)


@pytest.mark.parametrize(
    ("others", "most", "expected"),
    [(0, 2, 2), (0.3, 2, 2), (0.9, 2, 1), (5, 2, 1), (-0.1, 2, 2), (3.2, 8, 5), (0, 1, 1)],
)
def test_there_are_as_many_threads_as_cores_that_are_left(others, most, expected):
    assert threads_beside(others, most) == expected


def test_threads_follow_the_load_and_come_back(monkeypatch, capsys):
    torch.set_num_threads(4)
    clock, busy = [0.0], [0.0]
    monkeypatch.setattr(cpu_threads.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(CpuThreads, "_busy_seconds", lambda self: busy[0])
    threads = CpuThreads()
    seen = []
    for others in (0, 0, 2, 2, 4, 0):  # cores that others keep busy
        clock[0], busy[0] = clock[0] + 3, busy[0] + 3 * others
        threads.step_ended()
        seen.append(torch.get_num_threads())
    assert seen == [4, 4, 2, 2, 1, 4]
    assert capsys.readouterr().out.count("torch uses 2 of 4 threads") == 1


def test_a_fixed_number_stays(monkeypatch):
    threads = CpuThreads(1)
    monkeypatch.setattr(cpu_threads.time, "monotonic", lambda: 1e9)
    threads.step_ended()
    assert threads.count == torch.get_num_threads() == 1
