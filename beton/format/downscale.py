"""cv2.resize with INTER_AREA, the same bits in half the time: what the writer spends most of its time on.

OpenCV walks over a row's sources one by one; here a row's outputs are computed side by side (the compiler
makes gathers of it). The sums are added up in OpenCV's order, in 32-bit floats as there.
"""

import cv2
import numpy as np

from beton.kernels.jit import jit


def downscale(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Shrink a photo (uint8, H x W x 3) to height x width, neither more than it has, by averaging areas."""
    if pixels.shape[0] % height == 0 and pixels.shape[1] % width == 0:
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)  # in integers, and quickly
    target = np.empty((height, width, 3), np.uint8)
    _downscale(np.ascontiguousarray(pixels), target)
    return target


@jit
def _taps(source, target, channels):
    """For each number of a row or column of `target` pixels the numbers that it is a mean of, and their weights.

    Both n x (target * channels), n at least 3. Where there are fewer than n the weights are zero.
    """
    scale = 1.0 / (target / source)
    most = max(int(np.ceil(scale)) + 1, 3)
    places = np.zeros((most, target * channels), np.uint32)
    weights = np.zeros((most, target * channels), np.float32)
    for x in range(target):
        left, right = x * scale, x * scale + scale
        cell = min(scale, source - left)
        last = min(int(np.floor(right)), source - 1)
        first = min(int(np.ceil(left)), last)
        # The pixels of which only a part is covered are the first and the last; slivers are left out
        n, at = 0, first
        if first - left > 1e-3:
            at = first - 1
        stop = last + 1 if right - last > 1e-3 else last
        while at < stop:
            if at < first:
                weight = (first - left) / cell
            elif at < last:
                weight = 1.0 / cell
            else:
                weight = min(min(right - last, 1.0), cell) / cell
            for c in range(channels):
                places[n, x * channels + c] = at * channels + c
                weights[n, x * channels + c] = weight
            n, at = n + 1, at + 1
    return places, weights


@jit
def _downscale(source, target):
    rows, columns = _taps(source.shape[0], target.shape[0], 1), _taps(source.shape[1], target.shape[1], 3)
    source = source.reshape(source.shape[0], -1)
    target = target.reshape(target.shape[0], -1)
    width = target.shape[1]
    line = np.empty(source.shape[1], np.float32)
    means, sums = np.empty(width, np.float32), np.empty(width, np.float32)
    i0, i1, i2 = columns[0][0], columns[0][1], columns[0][2]
    w0, w1, w2 = columns[1][0], columns[1][1], columns[1][2]
    last = -1
    for y in range(target.shape[0]):
        for n in range(len(rows[0])):
            place, weight = np.int64(rows[0][n, y]), rows[1][n, y]
            if weight == 0:
                continue
            if place != last:  # two outputs share it
                last = place
                for i in range(len(line)):
                    line[i] = source[place, i]
                # Written out: the compiler has to know that these arrays do not overlap
                for i in range(width):
                    means[i] = line[i0[i]] * w0[i] + line[i1[i]] * w1[i] + line[i2[i]] * w2[i]
                for m in range(3, len(columns[0])):
                    more, w = columns[0][m], columns[1][m]
                    for i in range(width):
                        means[i] += line[more[i]] * w[i]
            if n == 0:
                for i in range(width):
                    sums[i] = weight * means[i]
            else:
                for i in range(width):
                    sums[i] += weight * means[i]
        for i in range(width):
            target[y, i] = np.uint8(np.int32(np.rint(sums[i])))
