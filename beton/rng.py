"""Random numbers that depend on (seed, epoch, sample) and nothing else.

A counter-based generator: the key of a sample is a hash of (seed, epoch, sample), the n-th draw of a
stage a hash of (key, stage, n). There is no state, so neither the number of workers nor the order
in which they finish can change a draw. The hash is the finaliser of SplitMix64 (Steele, Lea and
Flood, "Fast splittable pseudorandom number generators", 2014).
"""

import numpy as np

from beton.kernels.jit import jit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_DRAWS_PER_STAGE = np.uint64(1024)


@jit
def mix(x):
    """SplitMix64's finaliser of a uint64: a bijection whose output looks random."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


@jit
def _fill_keys(seed, epoch, samples, keys):
    run = mix(epoch * _GOLDEN + mix(seed + _GOLDEN))
    for i in range(len(samples)):
        keys[i] = mix(np.uint64(samples[i]) * _GOLDEN + run)


def sample_keys(seed: int, epoch: int, samples: np.ndarray) -> np.ndarray:
    """Keys (uint64, one for each sample) of `samples` (integers of at least 0) in an epoch.

    `seed` and `epoch` are integers from 0 to 2**63 - 1.
    """
    samples = np.ascontiguousarray(samples, dtype=np.int64)
    keys = np.empty(len(samples), dtype=np.uint64)
    _fill_keys(np.uint64(seed), np.uint64(epoch), samples, keys)
    return keys


def permutation(count: int, seed: int, epoch: int = 0) -> np.ndarray:
    """A random order of 0 .. count-1 (int64) that depends on (seed, epoch) alone."""
    return np.argsort(sample_keys(seed, epoch, np.arange(count)))  # no two keys are equal: they come from a bijection


@jit
def bits(key, stage, draw):
    """64 random bits (uint64): the `draw`-th of a stage for the sample with this key.

    `stage` is the stage's place in the pipeline, so two stages never share a draw. A stage that needs
    more than its 1024 draws takes one as the key of further ones.
    """
    counter = np.uint64(stage) * _DRAWS_PER_STAGE + np.uint64(draw) + np.uint64(1)
    return mix(key + counter * _GOLDEN)


@jit
def uniform(key, stage, draw):
    """The same as a number: float64 in [0, 1), 53 random bits."""
    return (bits(key, stage, draw) >> np.uint64(11)) * (1.0 / (1 << 53))
