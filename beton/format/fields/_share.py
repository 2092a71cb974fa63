"""What share of the threads' time callables take, told once."""

from __future__ import annotations

import sys
import threading

from beton.stages.callables import OnImage, name_of

_IMAGES = 256  # after which it is told; the first of all, which compile and import, do not count
_FIRST = 32


class Share:
    """The time of the callables among the stages of a field."""

    def __init__(self, field: str, callables: list[OnImage]):
        self._field, self._callables, self._lock = field, callables, threading.Lock()
        self._images, self._seconds, self._own, self._told = 0, 0.0, [0.0] * len(callables), False

    def add(self, images: int, seconds: float, own: list[float]) -> None:
        """So many images took `seconds` of a thread, of which the callables took `own`."""
        with self._lock:
            self._images += images
            if self._images > _FIRST:
                self._seconds += seconds
                self._own = [a + b for a, b in zip(self._own, own, strict=True)]
            if self._told or self._images < _IMAGES:
                return
            self._told = True
        for callable_, spent in zip(self._callables, self._own, strict=True):
            print(self._line(callable_, 100 * spent / max(self._seconds, 1e-9)), file=sys.stderr)

    def _line(self, callable_: OnImage, share: float) -> str:
        line = f"note: {callable_.name} takes {share:.0f} % of the time in which threads make '{self._field}'"
        stages = stages_for(callable_.function)
        return line + (f"; compiled stages that do the same: {', '.join(stages)}" if stages else "")


def stages_for(function) -> list[str]:
    """Names of the stages that do what a transform of torchvision or albumentations does, or those it is composed
    of."""
    from beton.stages.parse import STAGES

    names, waiting = set(), [function]
    while waiting:
        one = waiting.pop()
        names.add(name_of(one))
        inner = getattr(one, "transforms", None)
        waiting += list(inner) if isinstance(inner, (list, tuple)) else []
    return [name for name, stage in STAGES.all().items() if names & set(stage.replaces)]
