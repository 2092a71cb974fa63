"""What a stage of a pipeline is: one base class for each kind, in the order in which they may stand.

A stage is one file in this folder with two faces: the JIT operation that the loader runs, and the reference
transform that other pipelines use and that the tests compare it with. The file names its class STAGE.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np


class Stage:
    """A stage; its arguments are those of the constructor.

    `stage_index` is its position in the pipeline, set by the parser. Random numbers come from
    beton.rng.uniform(key, self.stage_index, n), where the `keys` (uint64, one a sample) are given.
    """

    stage_index = 0
    any_pixels: ClassVar[bool] = False  # whether it does images of any number of channels and dtype
    replaces: ClassVar[tuple[str, ...]] = ()  # transforms of other libraries that do the same, by their classes
    keeps_places: ClassVar[bool] = False  # whether all pixels stay where they are, so that masks and boxes still fit

    @property
    def name(self) -> str:
        """What messages call it: its file."""
        return type(self).__module__.rpartition(".")[2]

    def check_images(self, height: int, width: int) -> None:
        """Raise ValueError where the stage cannot do images of this size (pixels)."""

    def check_channels(self, channels: int) -> None:
        """Raise ValueError where what the stage was given is not for images of so many channels."""

    def reference(self) -> Callable:
        """The transform of torchvision or timm (PIL image or tensor) that the JIT operation must agree with.

        Import torchvision within: it takes seconds, and the loader does without it.
        """
        raise NotImplementedError


def side_by_side(count: int, *values) -> np.ndarray:
    """Numbers, or arrays of `count` numbers, side by side (int64, count x len(values))."""
    made = np.empty((count, len(values)), np.int64)
    if all(isinstance(value, int) for value in values):
        made[:] = values
        return made
    for place, value in enumerate(values):
        made[:, place] = value
    return made


class Crop(Stage):
    """Cuts a rectangle out of each photo and resizes it to `height` x `width` pixels. Exactly one, and first."""

    any_pixels = True
    height: int
    width: int
    fill: tuple[int, int, int] | None = None
    draws: ClassVar[bool] = True  # whether boxes and windows depend on the keys

    def check_channels(self, channels: int) -> None:
        """`fill` must be a colour of so many channels."""
        if self.fill is not None:
            colour_of(self.fill, channels)

    def boxes(self, heights: np.ndarray, widths: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Rectangles (int64, n x 4: top, left, height, width) of photos of these sizes (int64, n)."""
        raise NotImplementedError

    def windows(self, heights: np.ndarray, widths: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """How the boxes are resized: int64, n x 5, (rows, columns, top, left, filter).

        A box is resized to rows x columns by a filter of beton.stages.filters. The image is the window of
        `height` x `width` pixels of that which begins at (top, left). Beyond the edges it shows the colour `fill`
        (RGB), or where that is None the pixels mirrored at the edge.
        """
        raise NotImplementedError


class Pixels(Stage):
    """Changes images in place. Any number of them, after the crop."""

    def apply(self, images: np.ndarray, keys: np.ndarray) -> None:
        """Change images (uint8, n x H x W x 3) in place."""
        raise NotImplementedError


class Mirror(Pixels):
    """Mirrors images left-right and does nothing else: directly behind the crop it becomes a part of that."""

    any_pixels = True

    def mirrors(self, keys: np.ndarray) -> np.ndarray:
        """Which images are mirrored (bool, n)."""
        raise NotImplementedError

    def apply(self, images: np.ndarray, keys: np.ndarray) -> None:
        """Mirror images (uint8, n x H x W x 3) in place."""
        chosen = self.mirrors(keys)
        images[chosen] = images[chosen, :, ::-1]


class TopBottom(Pixels):
    """Mirrors images top-bottom and does nothing else."""

    any_pixels = True

    def mirrors(self, keys: np.ndarray) -> np.ndarray:
        """Which images are mirrored (bool, n)."""
        raise NotImplementedError


class Move(Pixels):
    """Moves images and gives what becomes free the colour `fill` (RGB). Directly behind the crop, or the stage that
    mirrors, it becomes a part of the crop.
    """

    any_pixels = True
    fill: tuple[int, int, int] = (0, 0, 0)

    def check_channels(self, channels: int) -> None:
        """`fill` must be a colour of so many channels."""
        colour_of(self.fill, channels)

    def moves(self, keys: np.ndarray) -> np.ndarray:
        """By how many pixels each image is moved (int64, n x 2: down, right)."""
        raise NotImplementedError

    def apply(self, images: np.ndarray, keys: np.ndarray) -> None:
        """Move images (uint8, n x H x W x 3) in place."""
        height, width, channels = images.shape[1:]
        fill = colour_of(self.fill, channels)
        for image, (down, right) in zip(images, self.moves(keys).tolist(), strict=True):
            before = image.copy()
            image[:] = fill
            rows, columns = max(0, height - abs(down)), max(0, width - abs(right))
            to, back = (max(0, down), max(0, right)), (max(0, -down), max(0, -right))
            image[to[0] :, to[1] :][:rows, :columns] = before[back[0] :, back[1] :][:rows, :columns]


class Paint(Pixels):
    """Gives a part of each image one `colour` (RGB). As the last of the pixel stages it may run behind normalize."""

    keeps_places = True
    colour: tuple[int, int, int] = (0, 0, 0)

    def paint(self, images: np.ndarray, keys: np.ndarray, colour: np.ndarray) -> None:
        """Paint in images (n x H x W x 3) of any dtype; `colour` (3 of that dtype) is what the colour is there."""
        raise NotImplementedError

    def apply(self, images: np.ndarray, keys: np.ndarray) -> None:
        """Paint in images (uint8, n x H x W x 3) in place."""
        self.paint(images, keys, np.array(self.colour, np.uint8))


class Normalize(Stage):
    """Turns pixels into floats: pixel * scale + shift for each channel. At most one.

    `scale_shift` (float32, 6) are the three scales and the three shifts.
    """

    any_pixels = keeps_places = True
    scale_shift: np.ndarray

    def scales_and_shifts(self, channels: int, unit: float) -> tuple[np.ndarray, np.ndarray]:
        """The scales and the shifts (float32, one a channel) for values from 0 to `unit`."""
        raise NotImplementedError

    def apply(self, images: np.ndarray, target: np.ndarray, dtype: Any) -> None:
        """Write images (uint8, n x H x W x 3) into target: float32, or the bits (uint16) of a 16-bit torch dtype."""
        raise NotImplementedError

    def of(self, colour: tuple[int, int, int], dtype: Any) -> np.ndarray:
        """What apply() makes of a colour (RGB): three numbers, of the dtype of its target."""
        target = np.empty((1, 1, 1, 3), np.float32 if str(dtype) == "torch.float32" else np.uint16)
        self.apply(np.array(colour, np.uint8).reshape(1, 1, 1, 3), target, dtype)
        return target.reshape(3)

    def on_device(self, images: Any, dtype: Any) -> Any:
        """The same for a tensor (uint8, N x 3 x H x W, channels_last) that is on its device already."""
        raise NotImplementedError

    def on_device_by(self, dtype: Any) -> str:
        """What on_device runs on a GPU, for the log."""
        return "torch"


class Float(Stage):
    """Changes normalised images in place. Any number of them, after the stage that normalises."""

    keeps_places = True
    drawn: ClassVar[int] = 0

    def apply(self, numbers: np.ndarray, keys: np.ndarray, dtype: Any) -> None:
        """Change numbers (n x H x W x 3; float32, or the bits, uint16, of a 16-bit torch dtype) in place."""
        raise NotImplementedError

    def draw(self, keys: np.ndarray, height: int, width: int) -> np.ndarray:
        """What on_device needs to know of each image: int64, n x `drawn`."""
        raise NotImplementedError

    def on_device(self, images: Any, drawn: Any) -> None:
        """The same in place for a tensor (N x 3 x H x W, channels_last) on its device; `drawn` (int64, N x `drawn`) is
        in the host's memory, page-locked. A stage without this runs in the threads, and normalize before it."""
        raise NotImplementedError

    @property
    def runs_on_device(self) -> bool:
        """Whether it has on_device."""
        return type(self).on_device is not Float.on_device


KINDS = (Crop, Pixels, Normalize, Float)  # in the order in which they may stand


def kind_of(stage: Stage) -> type[Stage]:
    """Which of KINDS a stage is."""
    return next(kind for kind in KINDS if isinstance(stage, kind))


def colour_of(fill: tuple[int, int, int], channels: int) -> tuple[int, ...]:
    """A colour for images of so many channels; raises ValueError where red, green and blue say nothing of them."""
    if channels == 3:
        return tuple(fill)
    if len(set(fill)) > 1:
        raise ValueError(f"the colour {fill} is not one number")
    return (fill[0],) * channels


def check_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width in pixels of `size`, a number for both or a pair; raises ValueError."""
    sides = (size, size) if isinstance(size, int) else size
    if not isinstance(sides, (tuple, list)) or len(sides) != 2:
        raise ValueError(f"size={size!r} is neither a whole number of pixels nor (height, width)")
    for side in sides:
        check_number("size", side, 1, 16384, whole=True)
    return tuple(sides)


def check_number(name: str, value, low: float, high: float, whole: bool = False) -> None:
    """Raise ValueError unless `value` is a number (not a bool) from `low` to `high`."""
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        raise ValueError(f"{name}={value!r} is not {'a whole number' if whole else 'a number'} from {low} to {high}")


def check_colour(name: str, value) -> tuple[int, int, int]:
    """A colour: `value` as three whole numbers from 0 to 255, one given for all or three; raises ValueError."""
    colour = (value,) * 3 if isinstance(value, int) else value
    if not isinstance(colour, (tuple, list)) or len(colour) != 3:
        raise ValueError(f"{name}={value!r} is neither a number nor three, of red, green and blue")
    for number in colour:
        check_number(name, number, 0, 255, whole=True)
    return tuple(colour)


def check_choice(name: str, value, choices) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in tuple(choices):
        raise ValueError(f"{name}={value!r} is not one of {', '.join(choices)}")


def check_range(name: str, value, low: float, high: float) -> None:
    """Raise ValueError unless `value` is a pair of numbers, in order, between `low` and `high`."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"{name}={value!r} is not a pair (low, high)")
    for number in value:
        check_number(name, number, low, high)
    if value[0] > value[1]:
        raise ValueError(f"{name}={value!r} is not in order")
