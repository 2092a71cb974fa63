"""Waiting for what a server and a fetching process have come to."""

import time

import numpy as np


def wait_until(what) -> None:
    """Until `what()` is true; an AssertionError after minutes."""
    deadline = time.monotonic() + 200
    while not what():
        assert time.monotonic() < deadline, "it has not come to that"
        time.sleep(0.002)


def held_and_written(server, cache, name) -> bool:
    """Whether a file is held, and all that was sent of it has been written into `cache` and noted."""
    if name not in server.held:
        return False
    (path,) = [*cache.rglob(f".{name}.ranges"), None][:1]
    if path is None:
        return False
    rows = path.read_bytes().partition(b"\n")[2]
    return np.frombuffer(rows, "<i8").reshape(-1, 3)[:, 2].sum() == server.bytes_of(name)
