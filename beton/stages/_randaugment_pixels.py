"""RandAugment's operations on colours, each with the arithmetic of the Pillow function that timm calls."""

import numpy as np

from beton.kernels.jit import jit
from beton.stages.gray import luma
from beton.stages.solarize import solarize_image


@jit
def _look_up(image, tables):
    """Replace each value by that of its channel's table (uint8, 3 x 256)."""
    red, green, blue = tables[0], tables[1], tables[2]
    height, width, _ = image.shape
    for y in range(height):
        for x in range(width):
            image[y, x, 0] = red[image[y, x, 0]]
            image[y, x, 1] = green[image[y, x, 1]]
            image[y, x, 2] = blue[image[y, x, 2]]


@jit
def _look_up_in_one(image, table):
    """Replace each value by that of one table (uint8, 256)."""
    values = image.reshape(image.size)
    for i in range(len(values)):
        values[i] = table[values[i]]


@jit
def _histograms(image):
    counts = np.zeros((3, 256), np.int64)
    height, width, _ = image.shape
    for y in range(height):
        for x in range(width):
            for c in range(3):
                counts[c, image[y, x, c]] += 1
    return counts


@jit
def auto_contrast(image):
    """Stretch each channel to 0..255 (ImageOps.autocontrast)."""
    counts = _histograms(image)
    tables = np.empty((3, 256), np.uint8)
    for c in range(3):
        used = np.nonzero(counts[c])[0]
        low, high = used[0], used[-1]
        scale = 255.0 / (high - low) if high > low else 1.0
        offset = -low * scale if high > low else 0.0
        for i in range(256):
            tables[c, i] = min(max(int(i * scale + offset), 0), 255)
    _look_up(image, tables)


@jit
def equalize(image):
    """Give each channel a flat histogram (ImageOps.equalize)."""
    counts = _histograms(image)
    tables = np.empty((3, 256), np.uint8)
    for c in range(3):
        step = (counts[c].sum() - counts[c][np.nonzero(counts[c])[0][-1]]) // 255
        below = step // 2
        for i in range(256):
            tables[c, i] = min(below // step, 255) if step else i
            below += counts[c, i]
    _look_up(image, tables)


@jit
def invert(image):
    """255 less each value (ImageOps.invert)."""
    solarize_image(image, 0)


@jit
def posterize(image, bits):
    """Keep the `bits` highest bits of each value (ImageOps.posterize)."""
    mask = np.uint8((0xFF00 >> min(max(bits, 0), 8)) & 0xFF)
    values = image.reshape(image.size)
    for i in range(len(values)):
        values[i] &= mask


@jit
def solarize_add(image, add):
    """Add to the values below 128, up to 255 at most."""
    table = np.empty(256, np.uint8)
    for i in range(256):
        table[i] = min(i + add, 255) if i < 128 else i
    _look_up_in_one(image, table)


@jit
def _blend(start, end, factor):
    """From `start` to `end` by `factor`, in float32 and cut off, as Image.blend does it."""
    mixed = np.float32(start) + factor * (np.float32(end) - np.float32(start))
    return np.uint8(min(max(mixed, np.float32(0)), np.float32(255)))


@jit
def _blend_with_grey(image, grey, factor):
    """Blend between one grey and the image."""
    table = np.empty(256, np.uint8)
    for i in range(256):
        table[i] = _blend(grey, i, np.float32(factor))
    _look_up_in_one(image, table)


@jit
def brightness(image, factor):
    """Blend between black and the image (ImageEnhance.Brightness)."""
    _blend_with_grey(image, 0, factor)


@jit
def contrast(image, factor):
    """Blend between the mean grey and the image (ImageEnhance.Contrast)."""
    height, width, _ = image.shape
    total = 0
    for y in range(height):
        for x in range(width):
            total += luma(image[y, x, 0], image[y, x, 1], image[y, x, 2])
    _blend_with_grey(image, int(total / (height * width) + 0.5), factor)


@jit
def color(image, factor):
    """Blend between the image in grey and in colour (ImageEnhance.Color)."""
    height, width, _ = image.shape
    strength = np.float32(factor)
    for y in range(height):
        for x in range(width):
            grey = luma(image[y, x, 0], image[y, x, 1], image[y, x, 2])
            for c in range(3):
                image[y, x, c] = _blend(grey, image[y, x, c], strength)


@jit
def _sharpen_row(above, here, below, target, strength):
    """Three rows, flat, without the outer pixels in `target`; neighbours lie three values apart."""
    for i in range(len(target)):
        total = np.int32(0)
        for row in (above, here, below):
            total += np.int32(row[i]) + np.int32(row[i + 3]) + np.int32(row[i + 6])
        total += 4 * np.int32(here[i + 3])
        # A 26th is the least distance from a half, so float32 rounds as exact numbers would
        smooth = np.int32(np.float32(total) * np.float32(1 / 13) + np.float32(0.5))
        target[i] = _blend(smooth, here[i + 3], strength)


@jit
def sharpness(image, factor):
    """Blend between the smoothed image and the image (ImageEnhance.Sharpness); SMOOTH leaves the edges alone."""
    height, width, _ = image.shape
    if height < 3 or width < 3:
        return
    source = image.copy().reshape(height, 3 * width)
    target = image.reshape(height, 3 * width)
    for y in range(1, height - 1):
        _sharpen_row(source[y - 1], source[y], source[y + 1], target[y, 3:-3], np.float32(factor))
