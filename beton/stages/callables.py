"""Transforms of other libraries in a pipeline: on each image in the threads, or on the batch where it is used."""

from __future__ import annotations

import copy
import inspect
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from beton.errors import UserError
from beton.rng import further_keys
from beton.stages.base import Pixels, Stage

_TAKES = ("pil", "array", "tensor", "named")
_KEY_DRAW = 1023  # of the draws of a stage, that of which a callable's generators begin
_of_thread = threading.local()


class OnImage(Pixels):
    """A callable on each image in the loader's threads: see on_image."""

    def __init__(self, function: Callable, takes: str = "pil", keeps_places: bool = False):
        if not callable(function):
            raise UserError(f"{function!r} is not callable", "give a transform")
        if takes not in _TAKES:
            raise UserError(f"`takes`={takes!r} is none of {', '.join(_TAKES)}", "give one of these")
        self.function, self.takes, self.keeps_places = function, takes, keeps_places

    @property
    def name(self) -> str:
        """What messages call it."""
        return name_of(self.function)

    @property
    def seconds(self) -> float:
        """Time that this thread has spent in it."""
        return vars(_of_thread).setdefault("seconds", {}).get(id(self), 0.0)

    @seconds.setter
    def seconds(self, value: float) -> None:
        vars(_of_thread).setdefault("seconds", {})[id(self)] = value

    def apply(self, images: np.ndarray, keys: np.ndarray) -> None:
        """Put what the callable makes of images (uint8, n x H x W x 3) into their place."""
        from beton.stages.randomness import drawing, install

        install()
        started = time.perf_counter()
        function, own_keys = self._of_thread(), further_keys(keys, self.stage_index, _KEY_DRAW)
        with drawing() as begin:
            for image, key in zip(images, own_keys.tolist(), strict=True):
                begin(key)
                if hasattr(function, "set_random_seed"):  # albumentations has generators of its own
                    function.set_random_seed(key & 0xFFFFFFFF)
                self._put(image, self._called(function, image))
        self.seconds += time.perf_counter() - started

    def _of_thread(self) -> Callable:
        """The callable; a copy for each thread where it has generators of its own."""
        if not hasattr(self.function, "set_random_seed"):
            return self.function
        copies = vars(_of_thread).setdefault("copies", {})
        if copies.get(id(self), (None,))[0] is not self:
            copies[id(self)] = self, copy.deepcopy(self.function)
        return copies[id(self)][1]

    def _called(self, function: Callable, image: np.ndarray) -> Any:
        if self.takes == "pil":
            from PIL import Image

            return function(Image.fromarray(image))
        if self.takes == "tensor":
            import torch

            return function(torch.from_numpy(image.copy()).permute(2, 0, 1))
        return function(image=image.copy())["image"] if self.takes == "named" else function(image.copy())

    def _put(self, image: np.ndarray, made: Any) -> None:
        if hasattr(made, "permute") and getattr(made, "ndim", 0) == 3:
            made = made.permute(1, 2, 0)
        made = np.asarray(made)
        if made.dtype != np.uint8 or made.shape != image.shape:
            what = f"'{self.name}' made {made.dtype} {made.shape} of an image, uint8 {image.shape}"
            raise UserError(what, "leave sizes to the crop, numbers to the stage normalize, and the rest to on_batch")
        image[:] = made


class OnBatch:
    """A callable on the batch: see on_batch."""

    def __init__(self, function: Callable):
        if not callable(function):
            raise UserError(f"{function!r} is not callable", "give a module or a function")
        self.function = function


def on_image(function: Callable, takes: str = "pil", keeps_places: bool = False) -> OnImage:
    """A callable for a pipeline, called with each image in the loader's threads; it gives one of the same size back.

    A bare callable is the same as on_image(function). `takes`: what it is called with, and may give back: "pil" (a PIL
    image, RGB), "array" (uint8, H x W x 3), "tensor" (uint8, 3 x H x W), or "named": as function(image=array)["image"],
    as albumentations is. `keeps_places`: it moves no pixels, so that masks and boxes still fit.

    What it draws from `random`, `numpy.random` and torch depends on (seed, epoch, sample) alone.
    """
    return OnImage(function, takes, keeps_places)


def on_batch(function: Callable) -> OnBatch:
    """A callable (an nn.Module, Kornia) for the end of a pipeline, called with the batch (N x C x H x W) on its device.

    It runs where the batch is used: in the thread that iterates over the loader. What it draws depends on (seed, epoch,
    number of the batch, rank).
    """
    return OnBatch(function)


def name_of(function: Callable) -> str:
    """A function's name, or that of the class."""
    return getattr(function, "__name__", None) or type(function).__name__


def registered(thing: Any = None, *, name: str | None = None) -> Any:
    """`@beton.stage`: make a stage known by its name, for pipelines as text.

    Of a subclass of beton.stages.base.Stage, by the name of the class in lower case. Of a function (image, rng,
    **options) that gives an image (uint8, H x W x 3) of the same size back, called with each one and a
    numpy.random.Generator of its own; options are the arguments of the stage in the text. `name`: another name.
    """
    if thing is None:
        return lambda thing: registered(thing, name=name)
    from beton.stages.parse import STAGES

    if isinstance(thing, type) and issubclass(thing, Stage):
        STAGES.add(name or thing.__name__.lower(), thing)
        return thing
    if not callable(thing) or isinstance(thing, type):
        raise UserError(f"{thing!r} is neither a function nor a subclass of Stage", "register one of these")
    STAGES.add(name or name_of(thing), type(name_of(thing), (_OfFunction,), {"function": staticmethod(thing)}))
    return thing


class _OfFunction(Pixels):
    """A function of the user's as a stage."""

    @property
    def name(self) -> str:
        """That of the function."""
        return type(self).__name__

    function: Callable

    def __init__(self, *values, **named):
        inspect.signature(self.function).bind(None, None, *values, **named)  # TypeError
        self._values, self._named = values, named

    def apply(self, images: np.ndarray, keys: np.ndarray) -> None:
        """Put what the function makes of images (uint8, n x H x W x 3) into their place."""
        for image, key in zip(images, further_keys(keys, self.stage_index, _KEY_DRAW).tolist(), strict=True):
            image[:] = self._made(image.copy(), np.random.Generator(np.random.PCG64(key)))

    def _made(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        made = np.asarray(self.function(image, rng, *self._values, **self._named))
        if made.shape != image.shape:
            raise UserError(f"the stage '{type(self).__name__}' changes the size of images", "leave that to the crop")
        return made

    def reference(self) -> Callable:
        """The same on a PIL image, seeded by torch's generator."""
        import torch
        from PIL import Image

        def run(image):
            rng = np.random.default_rng(int(torch.randint(2**62, ())))
            return Image.fromarray(self._made(np.array(image), rng))

        return run
