"""Small functions of FFCV's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Any

import numpy as np

_printing = Lock()


def chunks(lst: Sequence, n: int) -> Iterator[Sequence]:
    """Parts of a list, each of `n` elements but for the last."""
    return (lst[start : start + n] for start in range(0, len(lst), n))


def is_power_of_2(n: int) -> bool:
    """Whether `n` is one."""
    return n > 0 and n & (n - 1) == 0


def align_to_page(ptr: int, page_size: int) -> int:
    """The first multiple of the page size from `ptr` on."""
    return -(-ptr // page_size) * page_size


def decode_null_terminated_string(bytes: np.ndarray) -> str:  # noqa: A002 as FFCV has it
    """ASCII text before the first zero byte."""
    return bytes.tobytes().split(b"\0")[0].decode("ascii")


def s_print(*a: Any, **b: Any) -> None:
    """print(), one thread at a time."""
    with _printing:
        print(*a, **b)
