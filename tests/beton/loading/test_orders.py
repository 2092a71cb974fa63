"""Traversal orders: every sample exactly once, the same for the same seed and epoch, shared out among ranks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beton.loading.orders import quasi_random_order, random_order, rank_share, repeated
from beton.rng import sample_keys
from tests.support.statistics import two_sample_p

seeds = st.integers(0, 2**61)
few = settings(max_examples=100)


def orders(samples, seed, epoch):
    """The random order, and the quasi-random one of a file with 7 samples a page."""
    return random_order(samples, seed, epoch), quasi_random_order(np.arange(samples) // 7, 4, seed, epoch)


@few
@given(st.integers(0, 500), seeds, st.integers(0, 1000))
def test_an_order_has_every_sample_once_and_repeats(samples, seed, epoch):
    for order, again in zip(orders(samples, seed, epoch), orders(samples, seed, epoch), strict=True):
        assert order.dtype == np.int64
        np.testing.assert_array_equal(np.sort(order), np.arange(samples))
        np.testing.assert_array_equal(order, again)


def test_orders_of_other_seeds_and_epochs_are_others():
    for kind in (0, 1):
        found = {tuple(orders(300, seed, epoch)[kind]) for seed in range(10) for epoch in range(10)}
        assert len(found) == 100
        places = np.array([np.argsort(order) for order in found])
        # Each sample comes early and late: the mean place of 100 orders is about the middle
        assert np.abs(places.mean(0) - 149.5).max() < 4.5 * 300 / np.sqrt(12 * 100)


def test_a_samples_place_says_nothing_about_its_augmentation():
    keys = sample_keys(0, 0, np.arange(10_000))
    early, late = np.split(random_order(10_000, 0, 0), 2)
    assert two_sample_p(keys[early] / 2.0**64, keys[late] / 2.0**64) > 0.001


@few
@given(st.integers(1, 500), st.integers(1, 40), st.integers(1, 8), st.booleans(), seeds)
def test_ranks_share_an_epoch_out(samples, batch_size, world_size, drop_last, seed):
    order = random_order(samples, seed, 0)
    shares = [rank_share(order, batch_size, rank, world_size, drop_last) for rank in range(world_size)]
    together = np.concatenate(shares)
    assert len(set(together.tolist())) == len(together)
    if drop_last:
        steps = samples // (batch_size * world_size)
        assert {len(share) for share in shares} == {steps * batch_size}
    else:
        assert len(together) == samples
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for start in range(0, max(map(len, shares)), batch_size):
        step = np.concatenate([share[start : start + batch_size] for share in shares])
        first = start * world_size
        assert set(step.tolist()) == set(order[first : first + batch_size * world_size].tolist()) & set(together)


@few
@given(st.lists(st.integers(0, 30), max_size=300), st.integers(0, 12), seeds, st.integers(0, 5))
def test_quasi_random_needs_a_window_of_pages_at_a_time(pages, window, seed, epoch):
    pages = np.array(pages, np.int64)
    order = quasi_random_order(pages, window, seed, epoch)
    np.testing.assert_array_equal(np.sort(order), np.arange(len(pages)))
    read = pages[order]
    spans = [(np.flatnonzero(read == page)[[0, -1]]) for page in np.unique(pages)]
    for place in range(len(read)):
        assert sum(first <= place <= last for first, last in spans) <= max(window, 1)


@few
@given(st.integers(1, 500), st.integers(1, 60), st.integers(1, 9), st.sampled_from([1, 2, 4, 8]), seeds)
def test_lanes_share_pages_out(samples, per_page, window, lanes, seed):
    pages = np.arange(samples) // per_page
    order = quasi_random_order(pages, window, seed, 0, lanes)
    np.testing.assert_array_equal(np.sort(order), np.arange(samples))
    shares = [pages[order[lane::lanes]] for lane in range(lanes)]
    assert sum(len(set(share.tolist())) for share in shares) <= len(set(pages.tolist())) + lanes - 1
    for share in shares:
        spans = [np.flatnonzero(share == page)[[0, -1]] for page in np.unique(share)]
        assert all(sum(a <= place <= b for a, b in spans) <= window for place in range(len(share)))


def test_quasi_random_mixes_as_many_pages_at_the_ends_as_in_between():
    pages = np.arange(20_000) // 50
    order = quasi_random_order(pages, 40, 1, 0)
    kinds = [len(set(pages[order[at : at + 40]].tolist())) for at in range(0, 20_000, 40)]
    # Of 40 pages 40 draws have 25 distinct, of 20 at the very ends 17
    assert min(kinds) >= 10 and 23 < np.mean(kinds[50:-50]) < 28


def test_repeated_views_stay_in_their_lane():
    order = np.arange(10)
    assert repeated(order, 2, 100).tolist() == [v for s in range(10) for v in (s, s + 100)]
    assert repeated(order, 2, 100, lanes=2).tolist() == [0, 1, 100, 101, 2, 3, 102, 103, *range(4, 6)] + [
        *(104, 105, 6, 7, 106, 107, 8, 9, 108, 109)
    ]


@pytest.mark.parametrize("window", [1, 3])
def test_quasi_random_shuffles_pages_and_within_pages(window):
    pages = np.arange(1000) // 50
    order = quasi_random_order(pages, window, 0, 0)
    assert not np.array_equal(np.unique(pages[order][:: 50 * window]), pages[order][:: 50 * window])
    for start in range(0, 900, 50 * window):
        piece = order[start : start + 50 * window]
        assert not np.array_equal(piece, np.sort(piece))
