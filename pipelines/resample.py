"""Pillow's antialiased resize as JIT code, of which only a window is computed.

A pixel of the result is the mean of the source's pixels around its centre, weighted by a kernel that is
stretched by the scale when shrinking: that is the antialiasing. As in Pillow, the weights are integers
with 22 bits after the point, and rows and columns are resized one after the other, with 8-bit pixels in
between.
"""

import numpy as np

from pipelines.jit import jit

BILINEAR, BICUBIC = 0, 1
FILTERS = {"bilinear": BILINEAR, "bicubic": BICUBIC}

_BITS = 22
_ONE, _HALF = 1 << _BITS, 1 << (_BITS - 1)
# Unsigned, so that numba does not ask at each index whether it counts from the end
_1, _2, _3 = np.uint64(1), np.uint64(2), np.uint64(3)


def short_side(heights: np.ndarray, widths: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns (int64) of photos whose short side is resized to `side`, rounded as torchvision's Resize."""
    short = np.minimum(heights, widths)
    return (side * heights / short).astype(np.int64), (side * widths / short).astype(np.int64)


@jit
def shown(first, count, size):
    """Which of `size` pixels the indices first ... first + count - 1 show (int64, `count`).

    Beyond an edge they are mirrored at the pixel on that edge: NumPy's and torchvision's "reflect".
    """
    period = max(1, 2 * (size - 1))
    indices = np.empty(count, np.int64)
    for i in range(count):
        at = (first + i) % period
        indices[i] = min(at, period - at)
    return indices


@jit
def _kernel(kind, x):
    """Weight at distance x: a triangle, or the cubic of Keys (1981) with a = -0.5."""
    x = abs(x)
    if kind == BILINEAR:
        return max(0.0, 1.0 - x)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    if x < 2.0:
        return ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return 0.0


@jit
def _weights(length, size, indices, kind):
    """How the pixels `indices` (int64, n) of `length` pixels resized to `size` are made.

    Pixel indices[i] is the sum of weights[i, k] / 2**22 times source pixel first[i] + k, for k below counts[i].
    Returns first, counts (int64, n) and weights (int32, n x the largest count).
    """
    scale = length / size
    stretch = max(1.0, scale)
    reach = stretch if kind == BILINEAR else 2.0 * stretch
    most = min(length, 2 * int(np.ceil(reach)) + 1)
    first, counts = np.empty(len(indices), np.int64), np.empty(len(indices), np.int64)
    weights, exact = np.empty((len(indices), most), np.int32), np.empty(most)
    for i in range(len(indices)):
        centre = (indices[i] + 0.5) * scale
        first[i] = max(0, int(centre - reach + 0.5))
        counts[i] = min(length, int(centre + reach + 0.5)) - first[i]
        total = 0.0
        for k in range(counts[i]):
            exact[k] = _kernel(kind, (first[i] + k + 0.5 - centre) / stretch)
            total += exact[k]
        for k in range(counts[i]):
            share = exact[k] / total * _ONE
            weights[i, k] = int(share + 0.5) if share >= 0 else int(share - 0.5)
    return first, counts, weights


@jit
def _pixel(total):
    """The 8-bit pixel of a sum of weights times pixels."""
    return np.uint8(min(max(total >> _BITS, 0), 255))


@jit
def _resize_columns(source, start, step, span, first, counts, weights, target):
    """Make each row of target (uint8, h x 3w) of `span` pixels of `source`: the first row's begin at start.

    `source` (uint8) has one dimension and `step` bytes a row; first, counts: uint64, w; weights: int32.
    A number of 64 bits holds the sums of two rows, one in each half: so a multiplication does for two.
    """
    pairs, last = np.empty(3 * span, np.int64), len(target) - 1
    for y in range(0, len(target), 2):
        below = min(y + 1, last)
        upper, lower = source[start + y * step :][: 3 * span], source[start + below * step :][: 3 * span]
        for x in range(3 * span):
            pairs[x] = np.int64(upper[x]) + (np.int64(lower[x]) << 32)
        for x in range(len(first)):
            r = g = b = _HALF + (_HALF << 32)
            at = _3 * first[x]
            for k in range(counts[x]):
                weight = weights[x, k]
                r += weight * pairs[at]
                g += weight * pairs[at + _1]
                b += weight * pairs[at + _2]
                at += _3
            for c, total in enumerate((r, g, b)):
                half = np.int64(np.int32(total))  # the lower half with its sign; the rest is the upper half
                target[y, 3 * x + c] = _pixel(half)
                target[below, 3 * x + c] = _pixel((total - half) >> 32)


@jit
def _resize_rows(source, start, step, first, counts, weights, target):
    """Make each row of target (uint8, h x 3w) of rows of `source`, of which row 0 begins at start.

    `source` (uint8) has one dimension and `step` bytes a row; first, counts: int64, n; weights: int32.
    """
    width = target.shape[1]
    totals = np.empty(width, np.int32)
    for y in range(len(target)):
        totals[:] = _HALF
        for k in range(counts[y]):
            at = start + (first[y] + k) * step
            weight, line = weights[y, k], source[at : at + width]
            for x in range(width):
                totals[x] = np.int32(totals[x] + weight * line[x])
        made = target[y]
        for x in range(width):
            made[x] = _pixel(totals[x])


@jit
def resample(photo, box, size, rows, columns, kind, target):
    """Resize a rectangle of a photo (uint8, H x W x 3) and show a part of the result in target (uint8, h x w x 3).

    `box` (int64: top, left, height, width) is cut out first, so pixels beside it have no weight. It is
    resized to `size` (rows, columns); target[i, j] is the pixel (rows[i], columns[j]) of that (int64).
    `kind` is BILINEAR or BICUBIC. Equals PIL's image.crop(box).resize(size, kind).
    """
    top, left, height, width = box
    first_row, row_counts, row_weights = _weights(height, size[0], rows, kind)
    first_column, column_counts, column_weights = _weights(width, size[1], columns, kind)
    # Only the part of the photo that has weight is touched: span_y x span_x pixels
    y, x = first_row.min(), first_column.min()
    span_y, span_x = (first_row + row_counts).max() - y, (first_column + column_counts).max() - x
    first_row -= y
    first_x, counts_x = (first_column - x).astype(np.uint64), column_counts.astype(np.uint64)
    step = 3 * photo.shape[1]
    start = (top + y) * step + 3 * (left + x)
    source, made = photo.reshape(photo.size), target.reshape(len(rows), 3 * len(columns))
    # Pixels in between are rounded to 8 bits, so the order shows. This is that of Pillow 13; earlier ones
    # resize the columns first always.
    if height > size[0] and height - size[0] > 2 * (width - size[1]):
        between = np.empty((len(rows), 3 * span_x), np.uint8)
        _resize_rows(source, start, step, first_row, row_counts, row_weights, between)
        flat = between.reshape(between.size)
        _resize_columns(flat, 0, 3 * span_x, span_x, first_x, counts_x, column_weights, made)
    else:
        between = np.empty((span_y, 3 * len(columns)), np.uint8)
        _resize_columns(source, start, step, span_x, first_x, counts_x, column_weights, between)
        flat = between.reshape(between.size)
        _resize_rows(flat, 0, 3 * len(columns), first_row, row_counts, row_weights, made)
