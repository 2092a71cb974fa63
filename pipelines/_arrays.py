"""The usual stages with NumPy and OpenCV, for loaders that bring none of their own."""

import math

import cv2
import numpy as np

from pipelines._peer import Recipe

_TRIES = 10


def box(recipe: Recipe, height: int, width: int, draw: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a photo's crop: as torchvision's RandomResizedCrop draws it, or the centre."""
    if recipe.scale is None:
        side = recipe.share * min(height / recipe.height, width / recipe.width)
        rows, columns = max(1, round(side * recipe.height)), max(1, round(side * recipe.width))
        return (height - rows) // 2, (width - columns) // 2, rows, columns
    low, high = recipe.ratio
    for _ in range(_TRIES):
        area = height * width * draw.uniform(*recipe.scale)
        ratio = math.exp(draw.uniform(math.log(low), math.log(high)))
        rows, columns = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < rows <= height and 0 < columns <= width:
            return int(draw.integers(height - rows + 1)), int(draw.integers(width - columns + 1)), rows, columns
    rows, columns = min(height, round(width / low)), min(width, round(height * high))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def decode(path: str) -> np.ndarray:
    """A photo as uint8, H x W x 3, RGB; raises ValueError."""
    image = cv2.imread(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise ValueError(f"OpenCV cannot read {path}")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def augment(recipe: Recipe, image: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Crop, resize (bilinear, not antialiased), flip and normalise an image (uint8, H x W x 3)."""
    top, left, rows, columns = box(recipe, *image.shape[:2], draw)
    image = cv2.resize(image[top : top + rows, left : left + columns], (recipe.width, recipe.height))
    if draw.random() < recipe.flip:
        image = cv2.flip(image, 1)
    return normalize(recipe, image) if recipe.mean else image


def normalize(recipe: Recipe, images: np.ndarray) -> np.ndarray:
    """Pixels (uint8, ... x 3) as float32, with the recipe's mean and std."""
    std = np.array(recipe.std, np.float32)
    scale, shift = 1 / (255 * std), -np.array(recipe.mean, np.float32) / std
    found = np.multiply(images, scale, dtype=np.float32)
    found += shift
    return found
