"""Stages as text: "rrc(176)|flip|normalize" becomes a list of stages.

Each stage is one file in pipelines/ops/ that holds both of its faces: the JIT operation that the FFCV
loader runs, and the reference transform that other loaders use and that the tests compare it with.
"""

import ast
import difflib
import importlib
import pkgutil
from collections.abc import Callable

import numpy as np

from pipelines import ops
from pipelines.errors import UserError

# The kinds of stages in the order in which they may stand.
_ORDER = CROP, IMAGE, VALUES, NUMBERS = "crop", "image", "values", "numbers"


class Stage:
    """One stage of a pipeline. A file in pipelines/ops/ defines a subclass and names it STAGE.

    `kind` says what the JIT operation does, and with which method:
    - CROP: `boxes(heights, widths, keys)` says which rectangle of each photo is cut out and resized
      to `size` x `size` pixels, and `windows(heights, widths, keys)` how. Exactly one, and first.
    - IMAGE: `apply(images, keys)` changes images (uint8, n x H x W x 3) in place. Any number. A stage that only
      mirrors images has `mirrors(keys)`: the loader lets the crop do that where the stage follows it.
    - VALUES: `apply(images, target, dtype)` writes numbers into target (n x H x W x 3): float32, or the
      bits (uint16) of a 16-bit `dtype`. At most one.
    - NUMBERS: `apply(numbers, keys, dtype)` changes such numbers in place. Any number, after VALUES.

    `keys` (uint64, one a sample) are for pipelines.draws.uniform(key, self.place, n).
    `place` is the stage's place in the pipeline; the parser sets it.
    """

    kind = IMAGE
    place = 0

    def windows(self, heights: np.ndarray, widths: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """How a crop stage resizes its boxes: int64, n x 5, (rows, columns, top, left, filter).

        The box is resized to rows x columns by a filter of pipelines.resample. The image is the window of
        `size` x `size` pixels of that which begins at (top, left); what it shows beyond the edges is mirrored.
        """
        raise NotImplementedError

    def mirrors(self, keys: np.ndarray) -> np.ndarray | None:
        """Which images an image stage mirrors left-right (bool, n), if it does nothing else; None otherwise."""
        return None

    def reference(self) -> Callable:
        """The torchvision transform (PIL image or tensor) that the JIT operation must agree with.

        Import torchvision within: it takes seconds, and the FFCV loader does without it.
        """
        raise NotImplementedError


def known() -> list[str]:
    """Names of all stages: the files in pipelines/ops/."""
    return sorted(m.name for m in pkgutil.iter_modules(ops.__path__) if not m.name.startswith("_"))


def _parse_one(text: str, place: int) -> Stage:
    """One stage such as "rrc(176, scale=(0.25, 1.0))"; arguments are literals, nothing is evaluated."""
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the latter ones: \0, nested too deeply
        raise UserError(f"cannot read the stage '{text.strip()}'", "write it as name or name(1, key=2)") from None
    arguments, keywords = [], []
    if isinstance(call, ast.Call):
        call, arguments, keywords = call.func, call.args, call.keywords
    if not isinstance(call, ast.Name):
        raise UserError(f"cannot read the stage '{text.strip()}'", "write it as name or name(1, key=2)")
    if call.id not in known():
        close = difflib.get_close_matches(call.id, known(), 1)
        raise UserError(
            f"unknown stage '{call.id}'" + (f" (did you mean '{close[0]}'?)" if close else ""),
            f"use one of {', '.join(known())}, or add pipelines/ops/{call.id}.py",
        )
    try:
        values = [ast.literal_eval(a) for a in arguments]
        named = {k.arg: ast.literal_eval(k.value) for k in keywords}
    except (ValueError, TypeError, RecursionError, MemoryError):
        raise UserError(f"the arguments of '{text.strip()}' are not literals", "give numbers or tuples") from None
    if None in named:
        raise UserError(f"the arguments of '{text.strip()}' have a **", "write each as key=value")
    if len(named) < len(keywords):
        raise UserError(f"the stage '{text.strip()}' has an argument twice", "give it once")
    try:
        stage = importlib.import_module(f"pipelines.ops.{call.id}").STAGE(*values, **named)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"wrong arguments in the stage '{text.strip()}': {error}", "see its file in pipelines/ops"
        ) from None
    stage.place = place
    return stage


def parse(text: str) -> list[Stage]:
    """The stages of a pipeline text, checked for their order; raises UserError."""
    text = " ".join(text.split())  # messages are of one line
    stages = [_parse_one(part, place) for place, part in enumerate(text.split("|"))]
    kinds = [s.kind for s in stages]
    if kinds[0] != CROP or kinds.count(CROP) != 1:
        raise UserError(f"'{text}' must have one crop stage, and first", "begin with rrc(size) or center(size)")
    if kinds != sorted(kinds, key=_ORDER.index) or kinds.count(VALUES) > 1:
        raise UserError(f"in '{text}' the stages are out of order", "put normalize last, with only erase behind it")
    if NUMBERS in kinds and VALUES not in kinds:
        raise UserError(f"'{text}' ends with a stage that needs numbers", "put normalize before it")
    return stages


def check_number(name: str, value, low: float, high: float, whole: bool = False) -> None:
    """Raise ValueError unless `value` is a number (not a bool) from `low` to `high`."""
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        raise ValueError(f"{name}={value!r} is not {'a whole number' if whole else 'a number'} from {low} to {high}")


def check_choice(name: str, value, choices) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in tuple(choices):
        raise ValueError(f"{name}={value!r} is not one of {', '.join(choices)}")


def check_range(name: str, value, low: float, high: float) -> None:
    """Raise ValueError unless `value` is a pair of numbers, in order, between `low` and `high`."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"{name}={value!r} is not a pair (low, high)")
    for number in value:
        check_number(name, number, low, high)
    if value[0] > value[1]:
        raise ValueError(f"{name}={value!r} is not in order")
