"""What happens to a sample that cannot be decoded: `on_error`.

- raise: DamagedSample, at its batch.
- skip: it is left out, and its row gets the next good sample of the order that is in no batch yet (batches are
  prepared ahead). So batches stay full, and an epoch is shorter by what is lacking at its end: `drop_last` tasks
  read what they would else drop before they do with a batch less. Not for `drop_last` tasks of several
  ranks, which would no longer make the same number of steps.
- substitute: its row gets another sample, drawn from (seed, epoch, sample), with its own label. The number of batches
  stays the same.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from beton.errors import DamagedSample, UserError
from beton.rng import bits

RAISE, SKIP, SUBSTITUTE = POLICIES = ("raise", "skip", "substitute")
# Substitutes for a damaged sample that are tried before it is an error; their draws are none of a stage's.
ATTEMPTS, _SUBSTITUTE_DRAW = 100, 1 << 20
_MOST_NAMED = 20


def substitute_of(key: int, attempt: int, num_samples: int) -> int:
    """The sample to try in place of a damaged one that has this key."""
    return int(bits(np.uint64(key), _SUBSTITUTE_DRAW, attempt)) % num_samples


def read_substitute(read: Callable[[int], Any], key: int, num_samples: int, errors: tuple) -> tuple[int, Any] | None:
    """(sample, read(sample)) of the first substitute that can be read, None where ATTEMPTS of them cannot.

    `errors` are the exceptions that say that one cannot.
    """
    for attempt in range(ATTEMPTS):
        sample = substitute_of(key, attempt, num_samples)
        try:
            return sample, read(sample)
        except errors:
            continue
    return None


def no_substitute(name: str, dataset: str) -> UserError:
    """The error where none could be read."""
    what = f"{ATTEMPTS} samples that could replace {name} of {dataset} are damaged too"
    return UserError(what, "write the dataset again")


class LeftOut(dict):
    """The damaged samples of an epoch, each once, in the order in which they were found, and why.

    The first _MOST_NAMED ever are reported on stderr, and then once that there are more.
    """

    def __init__(self):
        self._reported, self._said_that_there_are_more = set(), False

    def add(self, error: DamagedSample, instead: str) -> None:
        """Note a damaged sample; `instead` is what was done, e.g. "left out"."""
        self.setdefault(error.sample, error.why)
        if error.sample in self._reported or self._said_that_there_are_more:
            return
        if len(self._reported) < _MOST_NAMED:
            self._reported.add(error.sample)
            print(f"warning: {error.what}; it is {instead}", file=sys.stderr)
        else:
            self._said_that_there_are_more = True
            print(f"warning: more samples of {error.dataset} are damaged, counted in left_out only", file=sys.stderr)
