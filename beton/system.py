"""What an operating system or a Python may lack; each function here works without it.

Linux has all of it. macOS has no CPU affinity; Windows has neither that nor file locks, positioned reads, advice about
mapped memory, or descriptors of folders; Python 3.10 has no hashlib.file_digest. Only Linux is tested.
"""

import hashlib
import mmap
import os
import signal
import stat
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:
    fcntl = None

_seeking = threading.Lock()
_locked: weakref.WeakSet[IO] = weakref.WeakSet()  # files
PAGE = mmap.PAGESIZE  # bytes
# What Linux reads ahead at least: of a longer piece it may read this much only
_READ_AHEAD = 128 << 10


def cores() -> int:
    """CPU cores that this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cores_of_rank() -> int:
    """This process's share of the cores, at least 1, where torchrun has started LOCAL_WORLD_SIZE of them here.

    They share the cores of their parent, and each may be bound to some of these, alone or with others.
    """
    local = os.environ.get("LOCAL_WORLD_SIZE", "")
    if not local.isdecimal() or not int(local):
        return cores()
    shared = cores()
    if hasattr(os, "sched_getaffinity"):
        with suppress(OSError):  # the parent is gone
            shared = len(os.sched_getaffinity(os.getppid()))
    return max(1, min(cores(), shared // int(local)))


def ranks_here(world_size: int) -> int:
    """How many of the ranks of a run are on this machine: torchrun's LOCAL_WORLD_SIZE, or all of them."""
    local = os.environ.get("LOCAL_WORLD_SIZE", "")
    return min(world_size, int(local)) if local.isdecimal() and int(local) else world_size


def lock(file: IO) -> bool:
    """Lock an open file against other processes until it is closed; False where another one holds it.

    A process that is forked meanwhile does not hold the lock, and has no such file. True, without a lock, on systems
    that have none.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    _locked.add(file)
    return True


def _let_go() -> None:
    """In a forked process: its copies of descriptors would hold the locks when this one's parent has ended."""
    for file in list(_locked):
        if not file.closed:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, file.fileno(), inheritable=False)
            os.close(null)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def read_at(file: IO, size: int, offset: int) -> bytes:
    """At most `size` bytes of an open file from byte `offset` on, fewer at its end; from any thread.

    Raises OSError. The file's own position may change.
    """
    if hasattr(os, "pread"):
        return os.pread(file.fileno(), size, offset)
    with _seeking:
        os.lseek(file.fileno(), offset, os.SEEK_SET)
        return os.read(file.fileno(), size)


def advise_willneed(mapped: mmap.mmap, start: int, length: int) -> None:
    """Ask the system to read bytes start ... start + length - 1 of a mapped file now; does nothing where it cannot."""
    if not hasattr(mapped, "madvise") or not hasattr(mmap, "MADV_WILLNEED"):
        return
    first = start // mmap.PAGESIZE * mmap.PAGESIZE
    mapped.madvise(mmap.MADV_WILLNEED, first, start + length - first)


def fetch(descriptor: int, start: int, stop: int) -> None:
    """Ask the system to read bytes start ... stop - 1 of a file now; for systems that have os.posix_fadvise."""
    for at in range(start, stop, _READ_AHEAD):
        os.posix_fadvise(descriptor, at, min(_READ_AHEAD, stop - at), os.POSIX_FADV_WILLNEED)


def forget(descriptor: int, start: int, stop: int) -> None:
    """Let the system drop bytes start ... stop - 1 of a file from memory, unless somebody has mapped them; whole pages.
    For systems that have os.posix_fadvise."""
    os.posix_fadvise(descriptor, start, stop - start, os.POSIX_FADV_DONTNEED)


def read_file(path: str | Path) -> bytes:
    """The bytes of an ordinary file; raises OSError for others, and never waits, though it be a pipe or a device.

    By descriptor, as a file object takes three times as many calls that release the GIL.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise OSError("it is not an ordinary file")
        content = os.read(descriptor, about.st_size)
        while len(content) < about.st_size and (more := os.read(descriptor, about.st_size - len(content))):
            content += more
        return content
    finally:
        os.close(descriptor)


def open_to_update(path: str | Path) -> IO[bytes]:
    """Open a file to read and write, made if it is missing and not truncated if it is there. Raises OSError."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "rb+", 1 << 20)


def sync_folder(folder: str | Path) -> None:
    """Have the names of renamed files on the disk, so that a power cut does not undo them; where a system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # some file systems cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal. Raises OSError."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(1 << 20))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def signals(*names: str) -> tuple[signal.Signals, ...]:
    """Those of the named signals that this system has, e.g. signals("SIGTERM", "SIGHUP")."""
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))
