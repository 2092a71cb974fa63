"""Where the pixels of an image come from: the stages that move pixels, for masks and boxes that follow their image."""

from __future__ import annotations

import numpy as np

from beton.errors import UserError
from beton.stages.base import Crop, Mirror, Move, Stage, TopBottom

NOWHERE = np.iinfo(np.int64).min  # of a row or a column that shows nothing of the image


def moving(stages: list[Stage], what: str) -> list[Stage]:
    """The stages of a pipeline that move pixels, crop first. Raises UserError, with `what` cannot follow (e.g.
    "masks"), for a stage that moves them in a way of its own."""
    for stage in stages[1:]:
        if not stage.keeps_places and not isinstance(stage, (Mirror, TopBottom, Move)):
            raise UserError(
                f"'{stage.name}' moves pixels in a way that {what} cannot follow", "leave it out of the stages"
            )
    return [stage for stage in stages if not stage.keeps_places]


class Geometry:
    """What `moving` stages do with images of given sizes (heights, widths: int64, n) and random keys (uint64, n)."""

    def __init__(self, stages: list[Stage], heights: np.ndarray, widths: np.ndarray, keys: np.ndarray):
        crop: Crop = stages[0]
        self.height, self.width = crop.height, crop.width
        self.boxes, self.windows = crop.boxes(heights, widths, keys), crop.windows(heights, widths, keys)
        # Each step in its order: mirrored (bool, n) along an axis (0: rows), or moved (int64, n) along it
        self.steps: list[tuple[str, int, np.ndarray]] = []
        for stage in stages[1:]:
            if isinstance(stage, Move):
                moves = stage.moves(keys)
                self.steps += [("move", axis, moves[:, axis]) for axis in (0, 1)]
            else:
                self.steps.append(("mirror", int(isinstance(stage, Mirror)), stage.mirrors(keys)))

    def lines(self, axis: int) -> np.ndarray:
        """Which rows (axis 0) or columns (1) of the resized box the image shows: int64, n x H or W.

        They go beyond the box where the window does; NOWHERE is what a move has left free.
        """
        side = self.width if axis else self.height
        places = np.arange(side)
        lines = self.windows[:, 2 + axis, None] + places
        for kind, along, values in self.steps:
            if along != axis:
                continue
            if kind == "mirror":
                lines[values] = lines[values, ::-1]
            elif values.any():
                source = places - values[:, None]
                moved = np.take_along_axis(lines, source.clip(0, side - 1), axis=1)
                lines = np.where((source >= 0) & (source < side), moved, NOWHERE)
        return lines

    def rectangles(self) -> np.ndarray:
        """The part of each photo that its image shows (float64, n x 4: top, left, height, width in pixels); beyond the
        edges of the photo where the image shows something else there."""
        found = np.empty((len(self.boxes), 4))
        for axis, side in enumerate((self.height, self.width)):
            scale = self.boxes[:, 2 + axis] / self.windows[:, axis]
            first = self.windows[:, 2 + axis].astype(float)
            for kind, along, values in self.steps:
                if along == axis and kind == "move":
                    # Of an image that was mirrored before, a move shows what lies on the other side
                    first -= np.where(self._mirrored_before(axis, values), -values, values)
            found[:, axis] = self.boxes[:, axis] + first * scale
            found[:, 2 + axis] = side * scale
        return found

    def mirrored(self, axis: int) -> np.ndarray:
        """Which images are mirrored in the end (bool, n): left-right (axis 1) or top-bottom (0)."""
        return self._mirrored_before(axis, None)

    def _mirrored_before(self, axis: int, move: np.ndarray | None) -> np.ndarray:
        mirrored = np.zeros(len(self.boxes), np.bool_)
        for kind, along, values in self.steps:
            if values is move:
                break
            if kind == "mirror" and along == axis:
                mirrored ^= values
        return mirrored


def nearest(lines: np.ndarray, start: int, length: int, size: int, reflect: bool, whole: float = 1.0) -> np.ndarray:
    """The rows of a mask that `lines` (int64, of a box of `length` rows from `start` on, resized to `size`) show; -1
    for those that show nothing.

    As torchvision resizes masks (interpolation "nearest"): line i is row floor(i * length / size) of the box, in
    float32. `reflect`: beyond the box the rows are mirrored at its edge, else there is nothing. `whole`: rows of the
    mask for one of the image.
    """
    free, last = lines == NOWHERE, size - 1
    if reflect:
        period = max(2 * last, 1)
        lines = np.abs(lines) % period
        lines = np.where(lines > last, period - lines, lines)
    else:
        free = free | (lines < 0) | (lines > last)
    lines = np.where(free, 0, lines)
    if whole == 1:
        rows = np.floor(lines.astype(np.float32) * (np.float32(length) / np.float32(size))).astype(np.int64)
        rows = start + np.minimum(rows, length - 1)
    else:
        rows = np.floor((start + (lines + 0.5) * (length / size)) * whole).astype(np.int64)
    return np.where(free, -1, rows)
