"""RandAugment's geometric operations: rotate, and slide the rows or the columns of an image.

They follow Pillow's affine transform (src/libImaging/Geometry.c): pixel centres lie at halves, a pixel
whose source lies outside the image becomes the fill colour, and at the edges taps are repeated. A shear
and a translation move each row (or column) by one distance, so one axis needs no interpolation at all.
"""

import math

import numpy as np

from beton.kernels.jit import jit

NEAREST, BILINEAR, BICUBIC = 0, 1, 2

# Pillow finds the nearest pixel in fixed-point numbers of 16 fractional bits.
_FIXED = 65536.0
# Sums of weights in float32 may end just below a whole number; Pillow cuts fractions off.
_ROUNDING = np.float32(1e-3)


@jit
def _to_uint8(value):
    return np.uint8(min(max(value, np.float32(0)), np.float32(255)))


@jit
def _fixed(value):
    return math.floor(value * _FIXED + 0.5)


@jit
def _distance(y, width, slope, offset, method):
    """Row y moves by whole + part pixels; its columns from low to high (without) lie inside the source."""
    if method == NEAREST:
        if slope == 0:
            whole = math.floor(offset + 0.5)
        else:
            whole = (_fixed(offset + 0.5 + slope * 0.5) + _fixed(slope) * y) >> 16
        part, low, high = 0.0, -whole, width - whole
    else:
        distance = slope * (y + 0.5) + offset
        whole = math.floor(distance)
        part = distance - whole
        low, high = math.ceil(-distance - 0.5), math.ceil(width - distance - 0.5)
    low = min(max(low, 0), width)
    return whole, np.float32(part), low, min(max(high, low), width)


@jit
def _interpolate_row(source, target, part, method):
    """target[i] from source[i], [i + 3], [i + 6] and [i + 9]: `part` of the way from the second to the third."""
    count = len(target)
    first, second, third, fourth = source[:count], source[3:], source[6:], source[9:]
    if method == BICUBIC:
        for i in range(count):
            a, b, c, d = first[i], second[i], third[i], fourth[i]
            value = part * (np.float32(2) * (a - b) + c - d + part * (b - a + d - c))
            target[i] = _to_uint8(b + part * (c - a + value))
    else:
        for i in range(count):
            target[i] = _to_uint8(second[i] + part * (third[i] - second[i]))


@jit
def _pad_row(row, padded):
    """A row of values with its first and last pixel (of three values) repeated twice."""
    padded[6:-6] = row
    for c in range(3):
        padded[c] = padded[3 + c] = row[c]
        padded[-6 + c] = padded[-3 + c] = row[-3 + c]


@jit
def slide_rows(image, slope, offset, fill, method):
    """Row y of the image (uint8, H x W x 3) becomes itself, `slope` * (y + 0.5) + `offset` pixels further right."""
    height, width, _ = image.shape
    padded = np.empty(3 * (width + 4), np.float32)
    for y in range(height):
        row = image[y].reshape(3 * width)
        _pad_row(row, padded)
        whole, part, low, high = _distance(y, width, slope, offset, method)
        for x in range(low):
            row[3 * x], row[3 * x + 1], row[3 * x + 2] = fill
        for x in range(high, width):
            row[3 * x], row[3 * x + 1], row[3 * x + 2] = fill
        if low < high:
            _interpolate_row(padded[3 * (low + whole + 1) :], row[3 * low : 3 * high], part, method)


@jit
def slide_columns(image, slope, offset, fill, method):
    """As slide_rows, with the axes exchanged."""
    height, width, _ = image.shape
    turned = np.empty((width, height, 3), np.uint8)
    for y in range(height):
        for x in range(width):
            for c in range(3):
                turned[x, y, c] = image[y, x, c]
    slide_rows(turned, slope, offset, fill, method)
    for y in range(height):
        for x in range(width):
            for c in range(3):
                image[y, x, c] = turned[x, y, c]


@jit
def _pad(image):
    """The image (float32, flat) with its edge pixels repeated twice on every side."""
    height, width, _ = image.shape
    padded = np.empty((height + 4, 3 * (width + 4)), np.float32)
    for y in range(height + 4):
        _pad_row(image[min(max(y - 2, 0), height - 1)].reshape(3 * width), padded[y])
    return padded.reshape(padded.size)


@jit
def _source(matrix, x, y):
    """Where in the source the centre of pixel (x, y) comes from."""
    cosine, sine, right, down = matrix
    x, y = x + 0.5, y + 0.5
    return cosine * x + sine * y + right, -sine * x + cosine * y + down


@jit
def _turn_nearest(image, matrix, fill):
    height, width, _ = image.shape
    source = image.copy()
    cosine, sine, _, _ = matrix
    u, v = _source(matrix, 0, 0)
    first_u, first_v = _fixed(u), _fixed(v)
    cosine_step, sine_step, minus_sine_step = _fixed(cosine), _fixed(sine), _fixed(-sine)
    for y in range(height):
        for x in range(width):
            u = (first_u + cosine_step * x + sine_step * y) >> 16
            v = (first_v + minus_sine_step * x + cosine_step * y) >> 16
            if 0 <= u < width and 0 <= v < height:
                for c in range(3):
                    image[y, x, c] = source[v, u, c]
            else:
                image[y, x, 0], image[y, x, 1], image[y, x, 2] = fill


@jit
def _turn_bilinear(image, matrix, fill):
    height, width, _ = image.shape
    padded, stride = _pad(image), 3 * (width + 4)
    for y in range(height):
        for x in range(width):
            u, v = _source(matrix, x, y)
            if not (0 <= u < width and 0 <= v < height):
                image[y, x, 0], image[y, x, 1], image[y, x, 2] = fill
                continue
            u, v = u + 1.5, v + 1.5  # pixel centres at whole numbers of the padded image
            left, top = int(u), int(v)
            across, down = np.float32(u - left), np.float32(v - top)
            for c in range(3):
                at = top * stride + 3 * left + c
                above = padded[at] + across * (padded[at + 3] - padded[at])
                at += stride
                below = padded[at] + across * (padded[at + 3] - padded[at])
                image[y, x, c] = _to_uint8(above + down * (below - above))


@jit
def _cubic_weights(t):
    """Of the four pixels around a stage `t` of the way from the second to the third: Keys' with a = -1."""
    one, two = np.float32(1), np.float32(2)
    t2 = t * t
    t3 = t2 * t
    return two * t2 - t3 - t, one - two * t2 + t3, t + t2 - t3, t3 - t2


@jit
def _turn_bicubic(image, matrix, fill):
    height, width, _ = image.shape
    padded, stride = _pad(image), 3 * (width + 4)
    for y in range(height):
        for x in range(width):
            u, v = _source(matrix, x, y)
            if not (0 <= u < width and 0 <= v < height):
                image[y, x, 0], image[y, x, 1], image[y, x, 2] = fill
                continue
            u, v = u + 1.5, v + 1.5  # pixel centres at whole numbers of the padded image
            left, top = int(u), int(v)
            a, b, c, d = _cubic_weights(np.float32(u - left))
            red = green = blue = _ROUNDING
            at = (top - 1) * stride + 3 * (left - 1)
            for weight in _cubic_weights(np.float32(v - top)):
                red += weight * (a * padded[at] + b * padded[at + 3] + c * padded[at + 6] + d * padded[at + 9])
                at += 1
                green += weight * (a * padded[at] + b * padded[at + 3] + c * padded[at + 6] + d * padded[at + 9])
                at += 1
                blue += weight * (a * padded[at] + b * padded[at + 3] + c * padded[at + 6] + d * padded[at + 9])
                at += stride - 2
            image[y, x, 0], image[y, x, 1], image[y, x, 2] = _to_uint8(red), _to_uint8(green), _to_uint8(blue)


@jit
def rotate(image, degrees, fill, method):
    """Turn the image (uint8, H x W x 3) anticlockwise about its centre, in place."""
    height, width, _ = image.shape
    degrees = degrees % 360.0
    if degrees == 0:
        return
    angle = -math.radians(degrees)
    # As Pillow has it: 15 digits, so that right angles are exact
    cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
    right = -cosine * (width / 2) - sine * (height / 2) + width / 2
    down = sine * (width / 2) - cosine * (height / 2) + height / 2
    matrix = (cosine, sine, right, down)
    if method == BICUBIC:
        _turn_bicubic(image, matrix, fill)
    elif method == BILINEAR:
        _turn_bilinear(image, matrix, fill)
    else:
        _turn_nearest(image, matrix, fill)
