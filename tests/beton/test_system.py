"""beton/system.py on a system that has everything, and on one that has nothing of it."""

import hashlib
import mmap
import os
import signal

import pytest

from beton import system


class Bare:
    """A memory map without madvise."""


@pytest.fixture(params=["all", "nothing"], autouse=True)
def calls(request, monkeypatch):
    if request.param == "nothing":
        take_away(monkeypatch)
    return request.param


def take_away(monkeypatch) -> None:
    """Remove what macOS or Windows lacks."""
    monkeypatch.setattr(system, "fcntl", None)
    for name in ("sched_getaffinity", "pread", "O_NONBLOCK", "O_DIRECTORY"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.delattr(mmap, "MADV_WILLNEED", raising=False)
    monkeypatch.delattr(signal, "SIGHUP", raising=False)


def test_there_is_at_least_one_core():
    assert system.cores() >= 1


def test_bytes_are_read_from_where_they_are(tmp_path):
    (tmp_path / "file").write_bytes(bytes(range(100)))
    with open(tmp_path / "file", "rb") as file:
        assert system.read_at(file, 4, 90) == bytes([90, 91, 92, 93])
        assert system.read_at(file, 40, 95) == bytes(range(95, 100))
        assert system.read_at(file, 4, 3) == bytes([3, 4, 5, 6])


def test_a_mapped_file_may_be_asked_for(tmp_path):
    (tmp_path / "file").write_bytes(bytes(3 * mmap.PAGESIZE))
    with open(tmp_path / "file", "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        system.advise_willneed(mapped, mmap.PAGESIZE + 5, 100)
    system.advise_willneed(Bare(), 0, 10)


def test_a_second_lock_is_refused_where_there_are_locks(tmp_path, calls):
    with system.open_to_update(tmp_path / "file") as one, system.open_to_update(tmp_path / "file") as other:
        assert system.lock(one)
        assert system.lock(other) == (calls == "nothing")


def test_a_file_opened_to_update_keeps_its_bytes(tmp_path):
    with system.open_to_update(tmp_path / "file") as file:
        file.write(b"here\n")
    with system.open_to_update(tmp_path / "file") as file:
        assert file.read() == b"here\n"


def test_an_ordinary_file_is_read_whole_and_others_are_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"\r\n\x1a")
    assert system.read_file(tmp_path / "file") == b"\r\n\x1a"
    read = os.read
    monkeypatch.setattr(os, "read", lambda file, count: read(file, min(count, 2)))  # as some network file systems do
    assert system.read_file(tmp_path / "file") == b"\r\n\x1a"
    with pytest.raises(OSError, match="not an ordinary file"):
        system.read_file("/dev/zero")


def test_folders_are_synced(tmp_path):
    system.sync_folder(tmp_path)


def test_sha256(tmp_path):
    content = os.urandom((2 << 20) + 17)
    (tmp_path / "file").write_bytes(content)
    assert system.sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_signals_that_the_system_has(calls):
    expected = (signal.SIGTERM,) if calls == "nothing" else (signal.SIGTERM, signal.SIGHUP)
    assert system.signals("SIGTERM", "SIGHUP", "SIGNONSENSE") == expected


def test_a_forked_process_does_not_hold_a_lock_that_its_parent_has_let_go_of(tmp_path, calls):
    if calls == "nothing":
        pytest.skip("there are no locks")
    (read, write), (began, begin) = os.pipe(), os.pipe()
    with system.open_to_update(tmp_path / "lock") as file, system.open_to_update(tmp_path / "lock") as other:
        assert system.lock(file) and not system.lock(other)
        child = os.fork()
        if not child:
            os.write(begin, b"1")
            os.close(write)
            os.read(read, 1)  # until the parent has looked
            os._exit(0)
        os.read(began, 1)
        file.close()
        try:
            assert system.lock(other)
        finally:
            os.close(write)
            os.waitpid(child, 0)
            for descriptor in (read, began, begin):
                os.close(descriptor)
