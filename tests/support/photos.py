"""Photos made on the spot, and sources of them."""

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from beton.sources.generated import open_source


def draw(seed: int, height: int = 60, width: int = 90, noise: float = 5) -> np.ndarray:
    """A photo (uint8, H x W x 3): smooth with some noise, so that a JPEG of it is small but not trivial."""
    rng, size = np.random.default_rng(seed), (width, height)
    # Of colour there is little, and it changes slowly: JPEGs and blocks store it at half the resolution
    smooth = cv2.resize(rng.uniform(30, 226, (6, 6)), size)[..., None] + cv2.resize(
        rng.uniform(-30, 30, (2, 2, 3)), size
    )
    return (smooth + noise * rng.normal(0, 1, smooth.shape)).clip(0, 255).astype(np.uint8)


def draw_photos(count: int, low: int, high: int, seed: int = 0) -> list[np.ndarray]:
    """Smooth photos, no two alike, with sides from `low` to `high` pixels."""
    sizes = np.random.default_rng(seed).integers(low, high, (count, 2), endpoint=True).tolist()
    return [draw(1000 * seed + i, *size, noise=0) for i, size in enumerate(sizes)]


def generated_photos(count: int, split: str = "train", seed: int = 0) -> list[np.ndarray]:
    """Photos of the source `generated`, of some hundred pixels."""
    source = open_source(None, split, seed=seed, count=count)
    return [np.asarray(Image.open(io.BytesIO(source.read(i)[0]))) for i in range(count)]


def encoded(photo, kind: str = "PNG", **options) -> bytes:
    """Pixels, or a Pillow image, as a file."""
    file = io.BytesIO()
    image = photo if isinstance(photo, Image.Image) else Image.fromarray(photo)
    image.save(file, kind, **options)
    return file.getvalue()


def make_folder(folder: Path, sizes: list[tuple[int, int]], classes: int = 2) -> list[np.ndarray]:
    """PNG photos of these sizes (height, width), spread over the classes; returns them in the source's order."""
    photos = [draw(i, *size) for i, size in enumerate(sizes)]
    for i, photo in enumerate(photos):
        path = folder / f"class_{i * classes // len(sizes)}" / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo).save(path)
    return photos


class Source:
    """A source (see beton/sources) of photos (pixels, or bytes of files), each of a class of its own.

    `before(i)` is called before each is read: it may raise, or give another photo. `labels`: others than the numbers.
    """

    def __init__(self, photos: list, before=lambda i: None, labels: list | None = None):
        self.photos, self.before = photos, before
        self.labels = range(len(photos)) if labels is None else labels
        self.classes = [f"c{i:03d}" for i in range(len(photos))]

    def __len__(self):
        return len(self.photos)

    fields = {"image": "image", "label": "int"}

    def name(self, i):
        return f"photo {i}"

    def identity(self, i):
        return f"{self.labels[i]} {self.name(i)}"

    def read(self, i):
        other = self.before(i)
        return self.photos[i] if other is None else other, self.labels[i]
