"""The table of faults (faults.py), row by row: here an error that names what is wrong, or the right result.

With --slow stock FFCV 1.0.2 is held to the table too: the very check that passes here must not pass there.
"""

import signal
from contextlib import contextmanager

import pytest
from conftest import ROOT
from fault_runs import Server
from fault_table import KINDS, TABLE, Outcome, play
from faults import HEALTHY, markdown

_SECONDS = 20

each_fault = pytest.mark.parametrize("fault", TABLE, ids=lambda fault: fault.name)


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory):
    """What is imported and compiled once does not count against the limits."""
    assert play(HEALTHY, "ours", tmp_path_factory.mktemp("warm")) == Outcome("right")
    import write_dataset  # noqa: F401


class Hangs(BaseException):
    """No `except Exception` stops it."""


@contextmanager
def time_limit():
    def stop(*_):
        raise Hangs

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def play_apart(fault, side, folder, server) -> Outcome:
    return Outcome(**server.run(side, fault.name, folder))


@each_fault
def test_here(fault, tmp_path, request):
    if fault.apart:
        outcome = play_apart(fault, "ours", tmp_path, request.getfixturevalue("server"))
    else:
        with time_limit():
            outcome = play(fault, "ours", tmp_path)
    assert fault.passes(outcome), outcome


@pytest.mark.slow
@each_fault
def test_stock_ffcv_fails(fault, tmp_path, server):
    outcome = play_apart(fault, "stock", tmp_path, server)
    assert not fault.passes(outcome), outcome
    assert fault.is_as_told(outcome), outcome


@pytest.mark.parametrize("side", ["ours", pytest.param("stock", marks=pytest.mark.slow)])
def test_nothing_is_wrong_where_there_is_no_fault(side, tmp_path, server):
    """So what is seen of stock is not the doing of its scenario, nor of the process that it is played in."""
    assert play_apart(HEALTHY, side, tmp_path, server) == Outcome("right")


def test_the_table_for_people_is_up_to_date():
    page = (ROOT / "docs/faults.md").read_text()
    assert page == markdown(), "run python tests/faults.py > docs/faults.md"


def test_rows_are_many_and_all_different():
    assert len({fault.name for fault in TABLE}) == len({fault.what for fault in TABLE}) == len(TABLE) >= 40
    assert {kind for fault in TABLE for kind in fault.kinds} <= set(KINDS)
