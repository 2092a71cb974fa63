"""Which part of a data set this process is to write, where a launcher has started several."""

import os

from beton.errors import UserError

_ARRAY = [f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "MAX", "COUNT")]
# (number from 0, of how many) as torchrun and srun have them
_RANKS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))


def part_of(text: str) -> str:
    """`text`, or for 'auto' the part that the environment says: of a Slurm array, torchrun, or srun. Raises UserError.

    A job of an array has the whole array's number of parts: one that is submitted again alone needs its part named.
    """
    if text != "auto":
        return text
    if _ARRAY[0] in os.environ:
        task, first, last, count = map(_number, _ARRAY)
        step = (last - first) // max(count - 1, 1) or 1
        if (last - first) != step * (count - 1) or (task - first) % step:
            what = f"the tasks of the Slurm array from {first} to {last} are not {count} in even steps"
            raise UserError(what, f"submit it as --array=1-{count}, or give cfg.part")
        return f"{(task - first) // step + 1}/{count}"
    for number, of in _RANKS:
        if number in os.environ and of in os.environ:
            return f"{_number(number) + 1}/{_number(of)}"
    what = "cfg.part=auto, and the environment is none of a Slurm array, torchrun or srun"
    raise UserError(what, "give the part: cfg.part=3/8")


def _number(name: str) -> int:
    value = os.environ.get(name, "")
    if not value.isdecimal():
        raise UserError(f"{name}={value!r} in the environment is not a whole number", "give the part: cfg.part=3/8")
    return int(value)
