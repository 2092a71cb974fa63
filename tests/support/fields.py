"""Fields drawn at random with samples for them, and whether two values are the same, bit for bit."""

import random
import struct

import numpy as np
import torch

from beton.format import fields

NUMPY = ["bool", "uint8", "int16", "uint16", "int32", "int64", "float16", "float32", "float64", "complex64"]
TORCH = [*NUMPY, "bfloat16", "float8_e5m2"]
FLOATS = [0.0, -0.0, float("nan"), float("inf"), 5e-324, 1.7976931348623157e308, 1 / 3, -2.5]
INTS = [0, 1, -1, 2**63 - 1, -(2**63), 255, 65536]
LETTERS = 'ab \0\n"\\é€\U0001f600'


def array(draw: random.Random, dtype: str, shape: tuple) -> np.ndarray:
    """Any bits but NaN's: those that a Python float does not keep."""
    rng = np.random.default_rng(draw.getrandbits(32))
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if np.dtype(dtype).kind in "fc":
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8).view(dtype).reshape(shape)


def tensor(draw: random.Random, dtype: str, shape: tuple) -> torch.Tensor:
    if dtype in NUMPY:
        return torch.from_numpy(array(draw, dtype, shape))
    return torch.from_numpy(array(draw, "float32", shape)).to(getattr(torch, dtype))


def text(draw: random.Random) -> str:
    return "".join(draw.choice(LETTERS) for _ in range(draw.randint(0, 9)))


def tree(draw: random.Random, depth: int = 0):
    kind = draw.randint(0, 7 if depth < 2 else 5)
    if kind == 6:
        return [tree(draw, depth + 1) for _ in range(draw.randint(0, 3))]
    if kind == 7:
        return {text(draw): tree(draw, depth + 1) for _ in range(draw.randint(0, 3))}
    return [None, True, draw.getrandbits(70), -0.25, text(draw), 1e300][kind]


def sides(draw: random.Random) -> tuple[int, ...]:
    return tuple(draw.randint(0 if draw.randint(0, 9) == 0 else 1, 5) for _ in range(draw.randint(0, 4)))


def column(draw: random.Random, count: int):
    """A field, and `count` values for it."""
    kind = draw.choice(["int", "float", "bytes", "text", "json", "image", *["array", "tensor"] * 3, "words"])
    if kind in ("array", "tensor"):
        make, dtype = (array, draw.choice(NUMPY)) if kind == "array" else (tensor, draw.choice(TORCH))
        shape = tuple(None if draw.randint(0, 3) == 0 else side for side in sides(draw))
        drawn = [tuple(draw.randint(0, 6) if side is None else side for side in shape) for _ in range(count)]
        field = (fields.Array if kind == "array" else fields.Tensor)(dtype, shape)
        return field, [make(draw, dtype, shape) for shape in drawn]
    values = {
        "int": lambda: draw.choice(INTS),
        "float": lambda: draw.choice(FLOATS),
        "bytes": lambda: bytes(draw.getrandbits(8) for _ in range(draw.choice([0, 1, 9]))),
        "text": lambda: text(draw),
        "json": lambda: tree(draw),
        "image": lambda: array(draw, "uint8", (draw.randint(1, 9), draw.randint(1, 9), 3)),
        "words": lambda: np.array([text(draw).replace("\0", "")[:3] for _ in range(2)], "<U3"),
    }[kind]
    more = {"image": ("raw",), "words": ("<U3", (2,))}.get(kind, ())
    return fields.FIELDS.get("array" if kind == "words" else kind)(*more), [values() for _ in range(count)]


def field_set(draw: random.Random) -> tuple[dict, list[dict]]:
    """One to six fields by name, and one to eight samples, dicts."""
    count = draw.randint(1, 8)
    columns = {f"f{number}": column(draw, count) for number in range(draw.randint(1, 6))}
    samples = [{name: values[i] for name, (_, values) in columns.items()} for i in range(count)]
    return {name: field for name, (field, _) in columns.items()}, samples


def stages(drawn: dict) -> dict[str, str]:
    """Keywords of a Loader with which it gives all fields as they are."""
    return {name: "center(8)" for name, field in drawn.items() if isinstance(field, fields.Image)}


def rows(batch) -> list[dict]:
    """The samples of a batch, without its images."""
    columns = {
        n: c for n, c in batch._asdict().items() if not (isinstance(c, torch.Tensor) and c.shape[1:] == (3, 8, 8))
    }
    count = len(next(iter(batch)))
    return [{name: column[row] for name, column in columns.items()} for row in range(count)]


def same(one, other) -> bool:
    """Whether what was read is what was written, to the last bit; a tensor may stand for an array or a number."""
    if isinstance(one, torch.Tensor) and not isinstance(other, (torch.Tensor, np.ndarray, np.generic)):
        one = one.item()
    if isinstance(one, torch.Tensor):
        other = other if isinstance(other, torch.Tensor) else torch.from_numpy(np.array(other))
        bits = [value.clone(memory_format=torch.contiguous_format).view(-1).view(torch.uint8) for value in (one, other)]
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*bits)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, float) and isinstance(other, float):
        return struct.pack("d", one) == struct.pack("d", other)
    return one == other and type(one) is type(other)
