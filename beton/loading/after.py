"""What is called with a batch where it is used: beton.on_batch."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import numpy as np

from beton.loading.task import Task
from beton.loading.to_device import mapped
from beton.rng import bits, sample_keys
from beton.stages.callables import OnBatch, name_of
from beton.stages.randomness import drawing_on, install

_BATCHES = 9 << 60  # set apart from the keys of samples
_MEASURED = 10  # batches after which their time is told


class Called:
    """The callables of columns, by name; each draws from (seed, epoch, number of the batch, rank)."""

    def __init__(self, callables: Mapping[str, list[OnBatch]], task: Task):
        self._callables, self._task = callables, task
        install()

    def with_batches(self, batches: Iterator, epoch: int, start: int) -> Iterator:
        """The batches of an epoch from batch `start` on, with the results in their place."""
        spent, began = 0.0, time.perf_counter()
        with closing(batches):
            for number, batch in enumerate(batches, start):
                key = sample_keys(self._task.seed ^ _BATCHES, epoch, np.array([number]))[0]
                key = int(bits(key, self._task.rank, 0))
                started = time.perf_counter()
                batch = self._called(batch, key)
                spent += time.perf_counter() - started
                if number - start + 1 == _MEASURED and epoch == 0 and not str(self._task.device).startswith("cuda"):
                    names = ", ".join(name_of(c.function) for found in self._callables.values() for c in found)
                    share = 100 * spent / (time.perf_counter() - began)
                    print(f"note: {names} on the batch takes {share:.0f} % of the loop's time", file=sys.stderr)
                yield batch

    def _called(self, batch: Any, key: int) -> Any:
        made = {}
        for place, (name, callables) in enumerate(self._callables.items()):
            column = batch[name] if isinstance(batch, dict) else getattr(batch, name, None)
            if column is None:
                column = getattr(batch, f"{name}_")
            for number, call in enumerate(callables):
                draw = iter(range(1 << 10))  # of several views each has its own

                def run(images, call=call, draw=draw, first=(place << 20) + (number << 10)):
                    own = int(bits(np.uint64(key), 0, first + next(draw)))
                    with drawing_on(images.device, own):
                        return call.function(images)

                column = mapped(run, column)
            made[name] = column
        if isinstance(batch, dict):
            return {**batch, **made}
        return batch._replace(**{name if hasattr(batch, name) else f"{name}_": made[name] for name in made})
