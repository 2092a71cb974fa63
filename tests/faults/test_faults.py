"""The table of faults (tests/support/faults), row by row: here an error that names what is wrong, or the right result.

With --slow stock FFCV 1.0.2 is held to the table too: the very check that passes here must not pass there.
"""

import signal
from contextlib import contextmanager

import pytest

from tests.support.faults import HEALTHY, markdown
from tests.support.faults.apart import play_apart
from tests.support.faults.table import KINDS, TABLE, Outcome, play
from tests.support.scripts import ROOT

_SECONDS = 60  # until a fault counts as a hang; each takes less than one

each_fault = pytest.mark.parametrize("fault", TABLE, ids=lambda fault: fault.name)


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory):
    """What is imported and compiled once does not count against the limit."""
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


@each_fault
def test_here(fault, tmp_path):
    if fault.apart:
        outcome = play_apart(fault, "ours", tmp_path)
    else:
        with time_limit():
            outcome = play(fault, "ours", tmp_path)
    assert fault.passes(outcome), outcome


@pytest.mark.slow
@each_fault
def test_stock_ffcv_fails(fault, tmp_path):
    outcome = play_apart(fault, "stock", tmp_path)
    assert not fault.passes(outcome), outcome
    assert fault.is_as_reported(outcome), outcome


@pytest.mark.parametrize("side", ["ours", pytest.param("stock", marks=pytest.mark.slow)])
def test_nothing_is_wrong_where_there_is_no_fault(side, tmp_path):
    """So what is seen of stock is not the doing of its scenario, nor of the process that it is played in."""
    assert play_apart(HEALTHY, side, tmp_path) == Outcome("right")


def test_the_table_for_people_is_up_to_date():
    page = (ROOT / "docs/faults.md").read_text()
    assert page == markdown(), "run python -m tests.support.faults > docs/faults.md"


def test_rows_are_many_and_all_different():
    assert len({fault.name for fault in TABLE}) == len({fault.what for fault in TABLE}) == len(TABLE) >= 40
    assert {kind for fault in TABLE for kind in fault.kinds} <= set(KINDS)
