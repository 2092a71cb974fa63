"""randaugment("rand-m9-mstd0.5-inc1"): RandAugment as timm has it.

The method is "RandAugment: Practical automated data augmentation with a reduced search space" (Cubuk et
al., 2020); operations, magnitudes, probabilities and the configuration string are those of
timm/data/auto_augment.py (timm 1.0.31), which DeiT, LeViT and FasterViT trained with.
"""

import random
import re

import numpy as np
import torch

from beton.errors import UserError
from beton.kernels.jit import jit
from beton.rng import uniform
from beton.stages._randaugment_affine import BICUBIC, BILINEAR, NEAREST, rotate, slide_columns, slide_rows
from beton.stages._randaugment_pixels import (
    auto_contrast,
    brightness,
    color,
    contrast,
    equalize,
    invert,
    posterize,
    sharpness,
    solarize_add,
)
from beton.stages.base import Pixels, check_number
from beton.stages.solarize import solarize_image

# timm's list in its order; with inc1 it calls the ones with a * ...Increasing
OPERATIONS = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",  # *
    "Solarize",  # *
    "SolarizeAdd",
    "Color",  # *
    "Contrast",  # *
    "Brightness",  # *
    "Sharpness",  # *
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
)
_AUTO_CONTRAST, _EQUALIZE, _INVERT, _ROTATE, _POSTERIZE, _SOLARIZE, _SOLARIZE_ADD, _COLOR = range(8)
_CONTRAST, _BRIGHTNESS, _SHARPNESS, _SHEAR_X, _SHEAR_Y, _TRANSLATE_X, _TRANSLATE_Y = range(8, 15)

# What is drawn for a layer of a sample: the columns of a plan.
OPERATION, LEVEL, SIGN, METHOD = range(4)
_DRAWS_PER_LAYER = 6
_METHODS = {"nearest": NEAREST, "bilinear": BILINEAR, "bicubic": BICUBIC, "random": -1}

# The parts of a configuration string: type, least, largest, value when absent.
_PARTS = {
    "m": (int, 0, 1000, 10),
    "n": (int, 1, 100, 2),
    "p": (float, 0, 1, 0.5),
    "mstd": (float, 0, float("inf"), 0.0),
    "mmax": (int, 1, 1000, 10),
    "inc": (int, 0, 1, 0),
}


def parse_config(text: str) -> dict:
    """The parts of a timm configuration string such as "rand-m9-mstd0.5-inc1"; raises UserError.

    m: magnitude; n: operations for an image; p: probability of each; mstd: deviation of the magnitude
    (above 100: uniform from 0 to m); mmax: bound of the magnitude; inc: 1 if a greater m changes more.
    """
    what = f"randaugment's configuration {text!r}"
    if not isinstance(text, str) or text.split("-")[0] != "rand":
        raise UserError(f"{what} does not begin with 'rand'", "write it as rand-m9-mstd0.5-inc1")
    found = {}
    for part in text.split("-")[1:]:
        name, value = re.fullmatch(r"([^\d.]*)(.*)", part, re.DOTALL).groups()
        if part.startswith(("t", "w")):
            raise UserError(f"{what} has {part!r}, but weighted operations are not supported", "leave that part out")
        if name not in _PARTS:
            raise UserError(f"{what} has an unknown part {part!r}", f"use {', '.join(_PARTS)}, each with a number")
        if name in found:
            raise UserError(f"{what} has '{name}' twice", "give it once")
        kind, low, high, _ = _PARTS[name]
        try:
            found[name] = kind(value)
            check_number(name, found[name], low, high)
        except ValueError:
            number = "a whole number" if kind is int else "a number"
            raise UserError(f"{what} has {part!r}", f"give {name} {number} from {low} to {high}") from None
    return {name: found.get(name, absent) for name, (_, _, _, absent) in _PARTS.items()}


@jit
def argument(operation, level, sign, increasing):
    """What an operation gets for a level from 0 to 10 (more with mmax): timm's ...level_to_arg functions."""
    share = level / 10.0
    if operation == _ROTATE:
        return sign * (share * 30.0)
    if operation in (_SHEAR_X, _SHEAR_Y):
        return sign * (share * 0.3)
    if operation in (_TRANSLATE_X, _TRANSLATE_Y):
        return sign * (share * 0.45)
    if operation == _POSTERIZE:
        return float(4 - int(share * 4) if increasing else int(share * 4))
    if operation == _SOLARIZE:
        threshold = min(256, int(share * 256))
        return float(256 - threshold if increasing else threshold)
    if operation == _SOLARIZE_ADD:
        return float(min(128, int(share * 110)))
    if _COLOR <= operation <= _SHARPNESS:
        return max(0.1, 1.0 + sign * (share * 0.9)) if increasing else share * 1.8 + 0.1
    return 0.0


@jit
def _on_values(image, operation, value):
    """An operation that looks at colours."""
    if operation == _AUTO_CONTRAST:
        auto_contrast(image)
    elif operation == _EQUALIZE:
        equalize(image)
    elif operation == _INVERT:
        invert(image)
    elif operation == _POSTERIZE:
        posterize(image, int(value))
    elif operation == _SOLARIZE:
        solarize_image(image, int(value))
    elif operation == _SOLARIZE_ADD:
        solarize_add(image, int(value))
    elif operation == _COLOR:
        color(image, value)
    elif operation == _CONTRAST:
        contrast(image, value)
    elif operation == _BRIGHTNESS:
        brightness(image, value)
    elif operation == _SHARPNESS:
        sharpness(image, value)


@jit
def _on_places(image, operation, value, fill, method):
    """An operation that moves pixels."""
    height, width, _ = image.shape
    if operation == _ROTATE:
        rotate(image, value, fill, method)
    elif operation == _SHEAR_X:
        slide_rows(image, value, 0.0, fill, method)
    elif operation == _SHEAR_Y:
        slide_columns(image, value, 0.0, fill, method)
    elif operation == _TRANSLATE_X:
        slide_rows(image, 0.0, value * width, fill, method)
    elif operation == _TRANSLATE_Y:
        slide_columns(image, 0.0, value * height, fill, method)


@jit
def follow(images, plan, increasing, fill):
    """Change images (uint8, n x H x W x 3) in place as a plan says."""
    for n in range(len(images)):
        for layer in range(plan.shape[1]):
            step = plan[n, layer]
            operation = int(step[OPERATION])
            value = argument(operation, step[LEVEL], step[SIGN], increasing)
            if operation == _ROTATE or operation >= _SHEAR_X:
                _on_places(images[n], operation, value, fill, int(step[METHOD]))
            else:
                _on_values(images[n], operation, value)


@jit
def _draw_level(key, stage, first, magnitude, deviation, largest):
    """A magnitude with its noise: two draws, made normal by Box and Muller's method."""
    one, two = uniform(key, stage, first), uniform(key, stage, first + 1)
    if np.isinf(deviation):
        magnitude = magnitude * one
    elif deviation > 0:
        magnitude += deviation * np.sqrt(-2 * np.log(1 - one)) * np.cos(2 * np.pi * two)
    return max(0.0, min(magnitude, largest))


@jit
def _plan(keys, stage, layers, chance, magnitude, deviation, largest, method):
    plan = np.empty((len(keys), layers, 4))
    for n in range(len(keys)):
        for layer in range(layers):
            key, first, step = keys[n], layer * _DRAWS_PER_LAYER, plan[n, layer]
            applied = uniform(key, stage, first + 1) < chance
            step[OPERATION] = int(uniform(key, stage, first) * 15) if applied else -1
            step[LEVEL] = _draw_level(key, stage, first + 2, magnitude, deviation, largest)
            step[SIGN] = -1 if uniform(key, stage, first + 4) < 0.5 else 1
            step[METHOD] = method
            if method < 0:
                step[METHOD] = BILINEAR if uniform(key, stage, first + 5) < 0.5 else BICUBIC
    return plan


def _posterize_by_timm(image, bits, **options):
    """timm's, but with 0 bits black; Pillow 13 refuses them, and the ...Increasing one gets there with 10 and inc1."""
    from timm.data.auto_augment import posterize

    return posterize(image, bits, **options) if bits >= 1 else image.point(lambda _: 0)


class _Reference:
    """timm's transform, with its global generators seeded from torch's, which the loader seeds for each sample."""

    def __init__(self, transform):
        self.transform = transform
        for operation in transform.ops:
            if operation.name.startswith("Posterize"):
                operation.aug_fn = _posterize_by_timm

    def __call__(self, image):
        seed = int(torch.randint(2**32, ()))
        random.seed(seed)
        np.random.seed(seed)
        return self.transform(image)


class RandAugment(Pixels):
    """`n` random operations, each done with probability `p`, of a random strength about `m`.

    `config`: timm's configuration string, see parse_config. `interpolation`: of the geometric operations,
    "bilinear", "bicubic", "nearest" or "random" (bilinear or bicubic, drawn each time; timm's default).
    `fill`: colour of what comes from outside the image; ImageNet's mean, as timm's training script has it.
    """

    replaces = ("RandAugment", "AutoAugment", "TrivialAugmentWide")

    def __init__(self, config: str = "rand-m9-mstd0.5-inc1", interpolation: str = "random", fill=(124, 116, 104)):
        parts = parse_config(config)
        if interpolation not in _METHODS:
            raise UserError(f"randaugment has no interpolation {interpolation!r}", f"use one of {', '.join(_METHODS)}")
        if not isinstance(fill, (tuple, list)) or len(fill) != 3:
            raise ValueError(f"fill={fill!r} is not three numbers")
        for value in fill:
            check_number("fill", value, 0, 255, whole=True)
        self.config, self.interpolation, self.fill, self.parts = config, interpolation, tuple(fill), parts

    def plan(self, keys: np.ndarray) -> np.ndarray:
        """What is drawn for samples: n x layers x (operation or -1, level, sign, interpolation), float64."""
        parts = self.parts
        deviation = parts["mstd"] if parts["mstd"] <= 100 else float("inf")
        method = _METHODS[self.interpolation]
        numbers = parts["p"], float(parts["m"]), deviation, float(parts["mmax"])
        return _plan(keys, self.stage_index, parts["n"], *numbers, method)

    def apply(self, images: np.ndarray, keys: np.ndarray) -> None:
        """Augment images (uint8, n x H x W x 3) in place."""
        follow(images, self.plan(keys), bool(self.parts["inc"]), self.fill)

    def reference(self):
        """timm's rand_augment_transform, which works on PIL images."""
        from timm.data import rand_augment_transform
        from timm.data.transforms import str_to_pil_interp

        options = {"img_mean": self.fill}
        if self.interpolation != "random":
            options["interpolation"] = str_to_pil_interp(self.interpolation)
        return _Reference(rand_augment_transform(self.config, options))


STAGE = RandAugment
