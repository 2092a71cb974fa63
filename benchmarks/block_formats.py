"""What a photo loses in each block format, how many bytes it takes, and how long: why write_mode=blocks is what it is.

    python benchmarks/block_formats.py --bench.photos=FOLDER --bench.out=FILE.json

The photos of the folder (bench.count of them, spread evenly) are downscaled to at most 500 px and stored as JPEG, as
blocks (beton/kernels/blocks.h), and in formats that were considered, of which there are only models in NumPy, without
a speed. A fixed format has blocks of the same number of bits an index everywhere; "luma 4x8:4" is 4 rows, 8 columns,
4 bits. In a variable format blocks have as many bits as they need and the photo as a whole has a given size. PSNR is
that of RGB against the photo, colour interpolated as in libjpeg, also after halving both. Means over the photos;
"worse" is the share of photos with a lower PSNR than as JPEG of quality 90. Times are CPU time of one thread to encode,
to decode all of a photo to RGB, and to crop 300 x 340 px; the least of many, calls from Python included.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from runtime import preflight

preflight.check()

import json
import os
import time

import cv2
import numpy as np
from fastargs import Config, Param, Section

from beton import kernels
from beton.errors import UserError
from beton.format.modes.blocks import MODE as BLOCKS
from runtime.config import INT, PATH, between, parse, run
from runtime.outputs import check_file

FIXED = {  # rows, columns, bits of luma and of colour
    "luma 4x4:3, colour 4x4:3": ((4, 4, 3), (4, 4, 3)),
    "luma 8x8:4, colour 8x8:4": ((8, 8, 4), (8, 8, 4)),
    "luma 4x8:4, colour 8x8:3": ((4, 8, 4), (8, 8, 3)),
    "luma 4x4:4, colour 8x8:2": ((4, 4, 4), (8, 8, 2)),
    "luma 8x8:4, colour 4x4:3": ((8, 8, 4), (4, 4, 3)),
}
VARIABLE = [((4, 4), 0.5), ((4, 8), 0.5), ((8, 8), 0.5), ((4, 4), 0.75), ((4, 8), 0.75), ((8, 8), 0.75)]
# The error of a block of range 1 at 0, 1, ... bits, measured on photos
ERRORS = np.array([0.1111614, 0.0172294, 0.0042335, 0.0011413, 0.0003009, 0.0000783, 0.000022, 0.0000055, 0])
LAST = 2.0 ** np.arange(9) - 1


def planes_of(rgb):
    """JPEG's YCbCr, the colour of 2 x 2 pixels averaged."""
    matrix = [[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]]
    luma, *colours = np.moveaxis(rgb.astype(float) @ np.array(matrix).T, 2, 0)
    planes = [luma]
    for colour in colours:
        h, w = colour.shape
        padded = np.pad(colour + 128, ((0, h % 2), (0, w % 2)), "edge")
        planes.append(padded.reshape((h + 1) // 2, 2, -1, 2).mean((1, 3)))
    return [np.clip(np.rint(plane), 0, 255) for plane in planes]


def rgb_of(planes):
    """RGB as libjpeg makes it: colour interpolated with 3/4 and 1/4."""
    luma, blue, red = planes
    blue, red = (upsample(plane - 128.0)[: luma.shape[0], : luma.shape[1]] for plane in (blue, red))
    rgb = [luma + 1.402 * red, luma - 0.344136286 * blue - 0.714136286 * red, luma + 1.772 * blue]
    return np.clip(np.rint(np.stack(rgb, 2)), 0, 255)


def upsample(plane):
    for _ in range(2):
        padded = np.pad(plane, ((1, 1), (0, 0)), "edge")
        rows = np.stack([padded[:-2], padded[2:]], 1) * 0.25 + plane[:, None] * 0.75
        plane = rows.reshape(2 * len(plane), -1).T
    return plane


def split(plane, high, wide):
    """The blocks, one a row, padded with the edge."""
    padded = np.pad(plane, ((0, -plane.shape[0] % high), (0, -plane.shape[1] % wide)), "edge")
    rows, columns = padded.shape[0] // high, padded.shape[1] // wide
    return padded.reshape(rows, high, columns, wide).swapaxes(1, 2).reshape(-1, high * wide)


def join(blocks, high, wide, shape):
    rows, columns = -(-shape[0] // high), -(-shape[1] // wide)
    plane = blocks.reshape(rows, columns, high, wide).swapaxes(1, 2).reshape(rows * high, columns * wide)
    return plane[: shape[0], : shape[1]]


def coded(blocks, last):
    """The blocks after two endpoints of 8 bits, refined by least squares, and indices 0..last (one for each block)."""
    last = np.reshape(last, (-1, 1))
    low, high = blocks.min(1, keepdims=True), blocks.max(1, keepdims=True)
    exact = high - low <= last
    best, least = np.where(last == 0, np.rint(blocks.mean(1, keepdims=True)), blocks), np.inf
    for _ in range(2):
        span, steps = high - low, np.maximum(last, 1)
        index = np.where(span > 0, np.clip(np.rint((blocks - low) * last / np.where(span > 0, span, 1)), 0, last), 0)
        decoded = np.rint(low + span * index / steps)
        error = np.sum((decoded - blocks) ** 2, 1, keepdims=True)
        best = np.where((error < least) & ~exact & (last > 0), decoded, best)
        least = np.minimum(error, least)
        x, x_mean, mean = index / steps, index.mean(1, keepdims=True) / steps, blocks.mean(1, keepdims=True)
        spread = np.sum((x - x_mean) ** 2, 1, keepdims=True)
        slope = np.sum((x - x_mean) * (blocks - mean), 1, keepdims=True) / np.where(spread > 0, spread, 1)
        low = np.clip(np.rint(mean - slope * x_mean), 0, 255)
        high = np.clip(np.rint(mean + slope * (1 - x_mean)), 0, 255)
    return best


def fixed(planes, luma, colour):
    """Decoded planes and bytes."""
    out, size = [], 0.0
    for plane, (high, wide, bits) in zip(planes, (luma, colour, colour), strict=True):
        blocks = split(plane, high, wide)
        out.append(join(coded(blocks, np.full(len(blocks), LAST[bits])), high, wide, plane.shape))
        size += len(blocks) * (2 + high * wide * bits / 8)
    return out, size


def variable(planes, shape, size):
    """Decoded planes and bytes (two and a half a block, and indices) when the blocks share `size` bytes."""
    parts = [split(plane, *shape) for plane in planes]
    blocks = np.concatenate(parts)
    span = np.ptp(blocks, 1)[:, None]
    errors = np.where(span > LAST, ERRORS * (span**2 - LAST**2), 0)
    gains = np.minimum.accumulate(errors[:, :-1] - errors[:, 1:], 1)
    upgrades = np.argsort(-gains, axis=None, kind="stable")
    upgrades = upgrades[gains.ravel()[upgrades] > 0]
    count = min(len(upgrades), int((size - 2.5 * len(blocks)) * 8 / (shape[0] * shape[1])))
    bits = np.bincount(upgrades[:count] // 8, minlength=len(blocks))
    decoded, out = coded(blocks, LAST[bits]), []
    for plane, part in zip(planes, parts, strict=True):
        out.append(join(decoded[: len(part)], *shape, plane.shape))
        decoded = decoded[len(part) :]
    return out, size


def best_ms(work, seconds=0.05):
    """The least CPU time of `work`, tried for so long."""
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.thread_time_ns()
        work()
        times.append(time.thread_time_ns() - start)
    return min(times) / 1e6


def psnr(a, b):
    return 10 * np.log10(255**2 / max(1e-9, np.mean((a.astype(float) - b) ** 2)))


def half(rgb):
    return cv2.resize(rgb.astype(np.float32), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def measure(rgb):
    """For each format: bytes a pixel, PSNR, PSNR after halving, and encode, decode and crop ms where known."""
    height, width = rgb.shape[:2]
    bgr, rows = np.ascontiguousarray(rgb[:, :, ::-1]), {}

    def add(name, decoded, size, *times):
        times = [*times, *[None] * (3 - len(times))]
        rows[name] = [size / height / width, psnr(decoded, rgb), psnr(half(decoded), half(rgb)), *times]

    for quality in (90, 80):
        options = [cv2.IMWRITE_JPEG_QUALITY, quality]
        jpeg = cv2.imencode(".jpg", bgr, options)[1]
        encode = best_ms(lambda options=options: cv2.imencode(".jpg", bgr, options))
        decode = best_ms(lambda jpeg=jpeg: cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB))
        add(f"JPEG q{quality}", cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB), jpeg.size, encode, decode)

    payload = kernels.encode_blocks(rgb)
    encode_ms = best_ms(lambda: kernels.encode_blocks(rgb))
    decode_ms = best_ms(lambda: kernels.decode(payload, BLOCKS.code, height, width))
    high, wide = min(300, height), min(340, width)
    box, window = ((height - high) // 2, (width - wide) // 2, high, wide), (high, wide, 0, 0, 2)
    crop_ms = best_ms(lambda: kernels.crop(payload, BLOCKS.code, (height, width), box, window, (high, wide)))
    decoded = kernels.decode(payload, BLOCKS.code, height, width)
    add("blocks (chosen)", decoded, payload.size, encode_ms, decode_ms, crop_ms)

    planes = planes_of(rgb)
    add("4:2:0 alone, not coded", rgb_of(planes), 1.5 * height * width)
    for name, (luma, colour) in FIXED.items():
        decoded, size = fixed(planes, luma, colour)
        add(f"fixed: {name}", rgb_of(decoded), size)
    for shape, rate in VARIABLE:
        decoded, size = variable(planes, shape, rate * height * width)
        add(f"variable: {shape[0]}x{shape[1]}, {rate} byte a pixel", rgb_of(decoded), size)
    return rows


def photo(path):
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise UserError(f"cannot read {path}", "take it out of bench.photos")
    scale = 500 / max(bgr.shape[:2])
    if scale < 1:
        size = [max(1, round(side * scale)) for side in bgr.shape[1::-1]]
        bgr = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(bgr[:, :, ::-1])


def declare() -> Config:
    """The section `bench`."""
    config = Config()
    Section("bench", "what to store", config_descriptor=config).params(
        photos=Param(PATH, "folder of photos, in folders or not", required=True),
        count=Param(between(INT, 1, 1_000_000), "so many of them, spread evenly", default=200),
        out=Param(PATH, "the JSON to write", required=True),
    )
    return config


def main(argv):
    bench = parse(declare(), argv).bench
    check_file(Path(bench.out))
    cv2.setNumThreads(1)
    found = Path(bench.photos).rglob("*") if os.path.isdir(bench.photos) else []
    paths = sorted(p for p in found if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not paths:
        raise UserError(f"there are no photos in {bench.photos}", "give a folder of .jpg or .png files")
    paths = [paths[int(i)] for i in np.linspace(0, len(paths) - 1, min(bench.count, len(paths)))]
    measured = [measure(photo(path)) for path in paths]

    table, names = [], ("bytes_per_pixel", "psnr", "psnr_half", "encode_ms", "decode_ms", "crop_ms")
    lines = ["| format | bytes a pixel | PSNR | half | lowest | worse | half | encode ms | decode ms | crop ms |"]
    lines.append("|---" * 10 + "|")
    jpeg = np.array([rows["JPEG q90"][:3] for rows in measured])
    for format_name in measured[0]:
        values = [rows[format_name] for rows in measured]
        quality = np.array([row[:3] for row in values])
        worse = np.mean(quality[:, 1:] < jpeg[:, 1:] - 1e-9, 0)
        means = [None if row[0] is None else float(np.mean(row)) for row in zip(*values, strict=True)]
        more = {"psnr_lowest": float(quality[:, 1].min()), "worse": worse[0], "worse_half": worse[1]}
        more["bytes_per_pixel_most"] = float(quality[:, 0].max())
        table.append({"format": format_name, **dict(zip(names, means, strict=True)), **more})
        times = ["" if ms is None else f"{ms:.3f}" for ms in means[3:]]
        numbers = [f"{means[0]:.3f}", f"{means[1]:.1f}", f"{means[2]:.1f}", f"{more['psnr_lowest']:.1f}"]
        shares = [f"{100 * share:.1f} %" for share in worse]
        lines.append(f"| {' | '.join([format_name, *numbers, *shares, *times])} |")
    print("\n".join(lines))
    Path(bench.out).write_text(json.dumps({"photos": len(paths), "rows": table}, indent=1) + "\n")


if __name__ == "__main__":
    run(main)
