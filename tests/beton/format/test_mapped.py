"""A file that is truncated in the very moment in which it is read, in processes that SIGBUS would end."""

import mmap
import os
import signal

import numpy as np
import pytest

import beton
from beton.errors import UserError
from beton.format.mapped import MappedFile
from tests.support.betons import write_source
from tests.support.photos import Source, draw_photos
from tests.support.scripts import Forked

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a mapped file cannot be truncated")
LAST = np.array([59])


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.beton"
    write_source(Source(draw_photos(60, 40, 60)), path, "raw")
    return path


def opened(path, **how):
    with beton.open(path) as file:
        return MappedFile(file, **how), file.columns["image"]


def cut_between_check_and_read(path, cached):
    mapped, column = opened(path, cached=cached)
    size = os.path.getsize(path)
    mapped.check(LAST)
    assert mapped.payload(column, 59).any()
    os.truncate(path, 4096)
    assert not mapped.payload(column, 59).any()
    with pytest.raises(UserError, match=r"a.beton was truncated while it was in use"):
        mapped.check_read()
    os.truncate(path, size)  # as long as before, and yet not what it was
    with pytest.raises(UserError, match="truncated"):
        mapped.check(LAST)


@pytest.mark.parametrize("cached", [False, True])
def test_what_is_lost_reads_as_zeros_and_is_an_error_afterwards(path, tmp_path, cached):
    process = Forked(tmp_path / "log", cut_between_check_and_read, path, cached)
    assert process.end() == 0, process.errors


def cut_in_the_loader(path):
    """The last samples are cut off each time that a chunk has been checked."""
    check = MappedFile.check

    def cut(self, samples):
        check(self, samples)
        os.truncate(path, 4096)

    MappedFile.check = cut
    with beton.Loader(path, 8, image="center(32)", workers=2, on_error="substitute") as loader:
        with pytest.raises(UserError, match="truncated"):
            list(loader)
        with pytest.raises(UserError, match="truncated"):
            loader.statistics("image")


def test_the_loader_raises_it_and_calls_no_sample_damaged(path, tmp_path):
    process = Forked(tmp_path / "log", cut_in_the_loader, path)
    assert process.end() == 0 and "damaged" not in process.errors, process.errors


def cut_before_statistics(path):
    with beton.Loader(path, 8, image="center(32)", workers=2, on_error="skip", verify=True) as loader:
        os.truncate(path, 4096)
        with pytest.raises(UserError, match="truncated"):
            loader.statistics("image")
        assert not loader.left_out


def test_statistics_call_no_sample_damaged(path, tmp_path):
    process = Forked(tmp_path / "log", cut_before_statistics, path)
    assert process.end() == 0, process.errors


def cut_elsewhere(path):
    mapped, _ = opened(path)
    with open(path, "rb") as file:
        other = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    os.truncate(path, 4096)
    mapped.check_read()
    print(other[-1])


def test_what_is_not_ours_ends_the_process_as_ever(path, tmp_path):
    assert Forked(tmp_path / "log", cut_elsewhere, path).end() == -signal.SIGBUS
