"""The random numbers below the stages: the published generator, uniform, uncorrelated."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from beton.rng import mix, sample_keys, uniform
from tests.support.statistics import uniform_p

# The generator as its paper has it, in Python's own integers
ALL, GOLDEN = 2**64 - 1, 0x9E3779B97F4A7C15


def paper_mix(x):
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & ALL
    x = (x ^ x >> 27) * 0x94D049BB133111EB & ALL
    return x ^ x >> 31


def paper_uniform(seed, epoch, sample, stage, draw):
    run = paper_mix(epoch * GOLDEN + paper_mix(seed + GOLDEN & ALL) & ALL)
    key = paper_mix(sample * GOLDEN + run & ALL)
    return (paper_mix(key + (stage * 1024 + draw + 1) * GOLDEN & ALL) >> 11) / 2**53


def test_the_hash_is_splitmix64():
    state, expected = 1234567, [6457827717110365317, 3203168211198807973, 9817491932198370423]
    for value in expected:  # the generator's published first numbers for this seed
        state = state + GOLDEN & ALL
        assert int(mix(np.uint64(state))) == paper_mix(state) == value


@settings(max_examples=200)
@given(
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**63 - 1),
    st.integers(0, 20),
    st.integers(0, 1023),
)
def test_draws_are_the_documented_numbers(seed, epoch, sample, stage, draw):
    key = sample_keys(seed, epoch, np.array([sample]))[0]
    assert uniform(key, stage, draw) == paper_uniform(seed, epoch, sample, stage, draw)


def test_draws_are_uniform_and_those_of_different_things_uncorrelated():
    def draws(seed=0, epoch=0, first=0, stage=0, draw=0):
        return [uniform(key, stage, draw) for key in sample_keys(seed, epoch, np.arange(first, first + 10_000))]

    kinds = [{}, {"seed": 1}, {"epoch": 1}, {"first": 1}, {"stage": 1}, {"draw": 1}, {"seed": 1, "epoch": 1}]
    found = np.array([draws(**kind) for kind in kinds])
    assert found.min() >= 0 and found.max() < 1
    for kind, values in zip(kinds, found, strict=True):
        assert uniform_p(values) > 0.001, kind
    others = np.corrcoef(found)[np.triu_indices(len(kinds), 1)]
    assert np.abs(others).max() < 4 / np.sqrt(10_000)
