"""like('image'): the stages of a column that is cut out as another one is, for masks and further images."""

from __future__ import annotations

import numpy as np

from beton.errors import UserError
from beton.stages.base import Stage, check_number
from beton.stages.geometry import moving
from beton.stages.parse import call, check_stages, one_stage


class Like:
    """What the decoder of the field `name` gets in place of a text.

    `followed`: the name of the column that is followed, `leader`: its stages; `heights`, `widths` (int64): of all of
    its stored images; `text`: the follower's own stages behind the `like`, may be empty. `fill`: what masks show
    where there is nothing of the image.
    """

    def __init__(
        self,
        name: str,
        followed: str,
        leader: list[Stage],
        heights: np.ndarray,
        widths: np.ndarray,
        text: str,
        fill: int,
    ):
        self._name, self._followed, self._leader = name, followed, leader
        self._heights, self._widths, self._text, self.fill = heights, widths, text, fill

    def __repr__(self) -> str:
        return f"like({self._followed!r})" + ("|" + self._text) * bool(self._text)

    def stages(self, channels: int = 3) -> list[Stage]:
        """The leader's stages that move pixels, with the draws that they have there, and then the own ones."""
        found = moving(self._leader, f"the field '{self._name}'")
        parts = [part.strip() for part in self._text.split("|")] if self._text else []
        own = [one_stage(part, len(self._leader) + number) for number, part in enumerate(parts)]
        return check_stages([*found, *own], self._text or "like", channels)

    def sides(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Heights and widths of the leader's images of some samples."""
        return self._heights[samples], self._widths[samples]

    def places(self, plan_places, samples: np.ndarray, keys: np.ndarray, own: tuple) -> np.ndarray:
        """What `plan_places` gives for the leader's images, its boxes carried over to images of the sizes `own`."""
        sides = self.sides(samples)
        places = plan_places(*sides, keys)
        for axis in (0, 1):
            if (sides[axis] != own[axis]).any():
                scale = own[axis] / sides[axis]
                first = np.rint(places[:, axis] * scale).astype(np.int64).clip(0, own[axis] - 1)
                last = np.rint((places[:, axis] + places[:, 2 + axis]) * scale).astype(np.int64)
                places[:, axis] = first
                places[:, 2 + axis] = np.clip(last - first, 1, own[axis] - first)
        return places


def split(text: str | tuple) -> tuple[str, int, str] | None:
    """(followed column, fill, own stages) of a text that begins with `like`, None for others; raises UserError."""
    if not isinstance(text, str):
        return None
    head, _, rest = text.partition("|")
    if head.strip().partition("(")[0].strip() != "like":
        return None
    name, values, named = call(head.strip())
    to_do = "write like('image') or like('image', fill=255)"
    if name != "like" or len(values) != 1 or not isinstance(values[0], str) or not set(named) <= {"fill"}:
        raise UserError(f"cannot read '{head.strip()}'", to_do)
    fill = named.get("fill", 0)
    try:
        check_number("fill", fill, -(2**63), 2**63 - 1, whole=True)
    except ValueError as error:
        raise UserError(f"wrong arguments in '{head.strip()}': {error}", to_do) from None
    return values[0], fill, rest.strip()
