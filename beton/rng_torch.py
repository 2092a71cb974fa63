"""rng.py's generator for tensors, on whatever device they are.

torch has no unsigned 64-bit arithmetic: int64 holds the same bits, products wrap, and shifts to the right are masked.
"""

import torch


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


_GOLDEN, _MIX_1, _MIX_2 = map(_signed, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _shifted(x: torch.Tensor, by: int) -> torch.Tensor:
    return (x >> by).bitwise_and_((1 << 64 - by) - 1)


def uniform_16_bits(keys: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """The highest 16 of rng.bits(key, 0, draw): int64 from 0 to 65535, of the shape to which the two broadcast.

    `keys` (int64) are the bits of the keys, `draws` (int64) of any range: what is below 0 gives a number, too.
    """
    x = keys + (draws + 1) * _GOLDEN
    x = x.bitwise_xor_(_shifted(x, 30)).mul_(_MIX_1)
    x = x.bitwise_xor_(_shifted(x, 27)).mul_(_MIX_2)
    return _shifted(x.bitwise_xor_(_shifted(x, 31)), 48)
