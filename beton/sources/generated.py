"""Photo-like images of ImageNet's shape, computed and not downloaded: ten classes of patterned objects.

A photo is a function of (seed, split, index) alone: leaves of flat colour behind, an object whose pattern
is the class, occluders in front, then what a camera adds (light, 1/f texture, blur, grain, JPEG 4:2:0).
Position, scale, colour and outline are drawn alike for every class, so that only the pattern tells.

    python -m beton.sources.generated OUT [--train N] [--val N] [--seed S] [--workers W]

writes them as a photo folder: OUT/train/<class>/<name>.jpg and OUT/val/<class>/<name>.jpg.
"""

import argparse
import functools
import itertools
import json
import math
import os
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from beton import progress
from beton.errors import UserError

CLASSES = ["blobs", "checks", "crosses", "dots", "rings", "spirals", "spokes", "stars", "stripes", "waves"]
SPLITS = {"train": 2000, "val": 400}  # the default number of photos
VERSION = 1  # raise it when the same (seed, split, index) gives another photo than before
LONGEST_SIDE = 1000
_NOISE_LOCK = threading.Lock()
TILE_SIDE = 1400  # a noise tile must hold the longest photo at the smallest zoom (1000 / 0.8)


def _pattern(name, x, y, rng):
    """The field whose sign tells an object's two colours apart: float32, H x W, about -1 to 1.

    x, y (float32, H x W) are the object's own coordinates: its outline lies near radius 1.
    """
    radius, angle = cv2.cartToPolar(x, y)
    match name:
        case "blobs":
            k = rng.uniform(6, 8)  # waves of one length from all directions
            waves = [(k * math.cos(a), k * math.sin(a), rng.uniform(0, 6.3)) for a in rng.uniform(0, 6.3, 7)]
            return 0.5 * sum(np.sin(a * x + b * y + phase) for a, b, phase in waves) + 0.5
        case "checks":
            k = rng.uniform(9, 13)
            return 1.5 * np.sin(k * x) * np.sin(k * y)
        case "crosses":
            k = rng.uniform(1.2, 1.5)
            u, v = (np.abs(z * k - np.floor(z * k) - 0.5) for z in (x, y))
            return 4 * np.minimum(0.1 - np.minimum(u, v), 0.42 - np.maximum(u, v))
        case "dots":
            k = rng.uniform(21, 27)
            return np.cos(k * x) + np.cos(k * y) - 0.75
        case "rings":
            return np.sin(rng.uniform(12, 18) * radius + rng.uniform(0, 6.3))
        case "spirals":
            turns = rng.uniform(7, 10) * (1 if rng.random() < 0.5 else -1)
            return np.sin(int(rng.integers(3, 5)) * angle + turns * radius) - 0.5
        case "spokes":
            return np.sin(int(rng.integers(7, 11)) * angle)
        case "stars":
            tips = int(rng.integers(5, 7)) / (2 * np.pi)
            return 3 * (0.3 + 1.1 * np.abs(angle * tips % 1 - 0.5) - radius)
        case "stripes":
            return np.sin(rng.uniform(17, 25) * x)
        case "waves":
            return np.sin(rng.uniform(14, 20) * y + rng.uniform(1.6, 2.2) * np.sin(rng.uniform(7, 10) * x))


def _noise_bank():
    with _NOISE_LOCK:  # else each of forty threads would make it
        return _make_noise_bank()


@functools.lru_cache(maxsize=1)
def _make_noise_bank():
    """1/f tiles (3 x S x S) and sensor grain (S x S x 3), float32, mean 0 and deviation 1, the same always.

    FFTs are far too slow to do for each photo; photos take random crops of these instead.
    """
    rng = np.random.Generator(np.random.PCG64(20240229))
    frequency = np.hypot(np.fft.fftfreq(TILE_SIDE)[:, None], np.fft.rfftfreq(TILE_SIDE)[None])
    frequency[0, 0] = np.inf  # no mean
    tiles = []
    for exponent in (0.9, 1.1, 1.3):
        white = np.fft.rfft2(rng.standard_normal((TILE_SIDE, TILE_SIDE), dtype=np.float32))
        tile = np.fft.irfft2(white / frequency**exponent, s=(TILE_SIDE, TILE_SIDE))
        tiles.append((tile / tile.std()).astype(np.float32))
    grain = rng.standard_normal((TILE_SIDE, TILE_SIDE, 3), dtype=np.float32)
    grain = 0.8 * grain[..., :1] + 0.6 * cv2.GaussianBlur(grain, (0, 0), 0.7)  # demosaicing smears colour
    return np.stack(tiles), grain / grain.std()


def _crop(tile, height, width, rng):
    top = rng.integers(0, tile.shape[0] - height + 1)
    left = rng.integers(0, tile.shape[1] - width + 1)
    return tile[top : top + height, left : left + width]


def _draw_size(rng):
    """Height and width in pixels, in about ImageNet's mix."""
    form = rng.random()
    if form < 0.08:
        long, short = rng.integers(160, 260), rng.integers(120, 200)
    elif form < 0.12:
        long, short = rng.integers(800, LONGEST_SIDE + 1), rng.integers(600, 760)
    elif form < 0.22:
        long = short = rng.integers(350, 501)
    else:
        long, short = 500, rng.choice((333, 357, 375, 375, 375, 400))
    return (long, short) if rng.random() < 0.22 else (short, long)


def _draw_colour(rng):
    """B, G, R and texture's strength, 15 to 245: a grey with a tint, for photographs are seldom gaudy."""
    return np.append(rng.uniform(50, 200) + rng.uniform(-35, 35, 3), rng.uniform(10, 245))


def _draw_leaves(canvas, rng, count, smallest, largest):
    """Polygons and ellipses of flat colour over one another; sizes in shares of the short side."""
    height, width = canvas.shape[:2]
    for _ in range(count):
        # Few large and many small ones, as with things seen at any distance.
        radius = min(height, width) / rng.uniform(1 / largest, 1 / smallest)
        if rng.random() < 0.4:  # an ellipse
            angles, reach = np.linspace(0, 6.28, 48), rng.uniform(0.3, 1.3, 2)
        else:
            angles = np.sort(rng.uniform(0, 6.28, rng.integers(3, 8)))
            reach = rng.uniform(0.5, 1.3, (len(angles), 1))
        corners = radius * reach * np.stack([np.cos(angles), np.sin(angles)], 1)
        corners += rng.uniform((0, 0), (width, height))
        cv2.fillPoly(canvas, [corners.astype(np.int32)], _draw_colour(rng).tolist(), cv2.LINE_AA)


def _draw_object(canvas, rng, pattern, radius):
    """Paints one object with the pattern; radius in shares of the short side."""
    height, width = canvas.shape[:2]
    radius *= min(height, width)
    inside = 0.5 * radius  # the centre stays far enough inside that most of the object is seen
    centre_x, centre_y = rng.uniform((inside, inside), (width - inside, height - inside)).tolist()
    top, left = (max(0, int(centre - 1.4 * radius)) for centre in (centre_y, centre_x))
    behind = canvas[top : int(centre_y + 1.4 * radius) + 1, left : int(centre_x + 1.4 * radius) + 1]
    y, x = np.indices(behind.shape[:2], np.float32)
    x, y = (x + (left - centre_x)) / radius, (y + (top - centre_y)) / radius

    # Numbers are Python floats below: a NumPy scalar would make the fields float64 and twice as slow.
    distance, angle = cv2.cartToPolar(x, y)
    bumps = [(n, rng.uniform(0, 0.36 / n), rng.uniform(0, 6.3)) for n in (2, 3, 5)]
    outline = sum(size * np.cos(n * angle + phase) for n, size, phase in bumps) + 1 - distance
    cover = np.clip(outline * radius + 0.5, 0, 1)[..., None]

    turn, squeeze, slope = rng.uniform((-0.25, 0.85, -0.15), (0.25, 1.15, 0.15)).tolist()
    cos, sin = math.cos(turn), math.sin(turn)
    x, y = (cos * x + sin * y) * squeeze, cos * y - sin * x + slope * x
    bend_x, bend_y = (rng.uniform(0.03, 0.1) * np.sin(3 * z + rng.uniform(0, 6.3)) for z in (y, x))
    x, y = x + bend_x + rng.uniform(-0.2, 0.2), y + bend_y + rng.uniform(-0.2, 0.2)
    share = np.clip(_pattern(pattern, x, y, rng) * (0.12 * radius) + 0.5, 0, 1)[..., None]

    dark = (0.6 * _draw_colour(rng)).astype(np.float32)
    brighter = (rng.uniform(85, 145) + rng.uniform(-30, 30, 4)).astype(np.float32)
    shade = 1 + rng.uniform(-0.25, 0.25) * x + rng.uniform(-0.25, 0.25) * y
    paint = (dark + share * brighter) * shade[..., None]
    behind[:] = np.clip(behind + cover * (paint - behind), 0, 255)


def _expose(canvas, rng):
    """What the camera adds. Canvas H x W x 4, uint8 (B, G, R, texture) to photo H x W x 3, uint8."""
    height, width = canvas.shape[:2]
    tiles, grain = _noise_bank()
    zoom = rng.uniform(0.8, 2)
    texture = _crop(tiles[rng.integers(len(tiles))], int(height / zoom), int(width / zoom), rng)
    texture = cv2.resize(texture, (width, height), interpolation=cv2.INTER_LINEAR)
    slopes = rng.uniform(-0.3, 0.3, 2).tolist()
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    across = np.linspace(-1, 1, width, dtype=np.float32)
    light = (1 + slopes[0] * down) * (1 + slopes[1] * across)
    strength = rng.uniform(0.08, 0.25) / 255
    light *= 1 + strength * canvas[..., 3] * texture
    photo = canvas[..., :3] * light[..., None]
    photo = cv2.GaussianBlur(photo, (0, 0), rng.uniform(0.5, 0.9))
    photo += rng.uniform(8, 18) * _crop(grain, height, width, rng)
    return np.clip(photo, 0, 255).astype(np.uint8)


def draw_photo(seed: int, split: str, index: int, pattern: str) -> np.ndarray:
    """The photo number `index` of a split as H x W x 3, uint8, BGR; a function of its arguments alone."""
    rng = np.random.Generator(np.random.PCG64([seed, list(SPLITS).index(split), index]))
    canvas = np.empty((*_draw_size(rng), 4), np.uint8)
    canvas[:] = _draw_colour(rng)
    _draw_leaves(canvas, rng, count=rng.integers(6, 20), smallest=0.03, largest=0.8)
    if rng.random() < 0.2:  # a small object of any class, to be overlooked
        _draw_object(canvas, rng, CLASSES[rng.integers(10)], rng.uniform(0.08, 0.14))
    _draw_object(canvas, rng, pattern, rng.uniform(0.65, 0.95))
    _draw_leaves(canvas, rng, count=rng.integers(0, 6), smallest=0.03, largest=0.16)
    return _expose(canvas, rng)


class Generated:
    """A source of `count` photos of one split; labels cycle through the classes, so they are balanced."""

    fields = {"image": "image", "label": "int"}

    def __init__(self, split: str, seed: int, count: int):
        self.split, self.seed, self.count = split, seed, count
        self.classes = list(CLASSES)
        _noise_bank()  # now, so that threads that read do not each compute it

    def __len__(self) -> int:
        return self.count

    def label(self, i: int) -> int:
        """The class of photo i, an index into `classes`."""
        if not 0 <= i < self.count:
            raise IndexError(f"photo {i} of {self.count}")
        return i % len(self.classes)

    def name(self, i: int) -> str:
        """Where photo i lies in the written folder, below the split's folder."""
        return f"{self.classes[self.label(i)]}/{self.split}_{i:06d}.jpg"

    stored_name = name

    def identity(self, i: int) -> str:
        """Label and name."""
        return f"{self.label(i)} {self.name(i)}"

    def read(self, i: int) -> tuple[bytes, int]:
        """Photo i as a JPEG file (RGB, 4:2:0, quality 90 to 96), and its label."""
        photo = draw_photo(self.seed, self.split, i, self.classes[self.label(i)])
        options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
        options += [cv2.IMWRITE_JPEG_QUALITY, 90 + i * 5 % 7]
        return cv2.imencode(".jpg", photo, options)[1].tobytes(), self.label(i)


def open_source(data_dir, split: str, seed: int = 0, count: int | None = None) -> Generated:
    """Opens the photos of a split, 'train' or 'val'; `data_dir` is ignored, for there is nothing to read."""
    if split not in SPLITS:
        raise UserError(f"unknown split '{split}'", f"choose one of {', '.join(SPLITS)}")
    count = SPLITS[split] if count is None else count
    if count < 1:
        raise UserError(f"{count} photos asked for in split '{split}'", "ask for 1 or more")
    if seed < 0:
        raise UserError(f"seed {seed} is negative", "give 0 or more")
    return Generated(split, seed, count)


def write_folder(out: Path, counts: dict[str, int], seed: int, workers: int) -> bool:
    """Writes a photo folder, whole or not at all; False if it was there already with the same parameters."""
    if workers < 1:
        raise UserError(f"{workers} workers asked for", "ask for 1 or more")
    sources = {split: open_source(None, split, seed, count) for split, count in counts.items()}
    parameters = json.dumps({"version": VERSION, "seed": seed, **counts}) + "\n"
    out = Path(out).resolve()
    if out.exists():
        card = out / ".generated.json"
        if card.is_file() and card.read_bytes() == parameters.encode():
            return False
        raise UserError(f"{out} exists and does not hold these photos", "remove it or name another folder")
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        for split, name in itertools.product(sources, CLASSES):
            (partial / split / name).mkdir(parents=True)

        def write(source, i):
            (partial / source.split / source.name(i)).write_bytes(source.read(i)[0])

        jobs = [(source, i) for source in sources.values() for i in range(len(source))]
        with ThreadPoolExecutor(workers) as pool, progress.bar(len(jobs), "photos") as bar:
            for _ in pool.map(write, *zip(*jobs, strict=True)):
                bar.update(1)
        (partial / ".generated.json").write_text(parameters)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True


SOURCE = open_source


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UserError(message, "see --help")


def _count(most: int):
    def number(text: str) -> int:
        if int(text) > most:
            raise argparse.ArgumentTypeError(f"more than {most}")
        return int(text)

    return number


def _one_line(error: Exception) -> str:
    return " ".join(str(error).splitlines())


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = _Parser(prog="python -m beton.sources.generated", description="Write a folder of photos.")
    parser.add_argument("out", type=Path)
    for split, count in SPLITS.items():
        parser.add_argument(f"--{split}", type=_count(10**8), default=count, help=f"photos (default {count})")
    parser.add_argument("--seed", type=_count(2**31 - 1), default=0)
    parser.add_argument(
        "--workers", type=_count(1024), default=os.cpu_count() or 1, help="threads (default: all cores)"
    )
    try:
        given = parser.parse_args(arguments)
        counts = {split: getattr(given, split) for split in SPLITS}
        if write_folder(given.out, counts, given.seed, given.workers):
            print(f"wrote {sum(counts.values())} photos to {given.out}")
        else:
            print(f"{given.out} holds these photos already; nothing to do")
        return 0
    except OSError as error:
        print(f"error: cannot write ({_one_line(error)}); name another folder or make room", file=sys.stderr)
    except UserError as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
