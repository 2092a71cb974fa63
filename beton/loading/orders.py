"""Traversal orders: which samples a rank reads in an epoch, and in which order."""

import numpy as np

from beton.rng import permutation, sample_keys

# Set apart from the keys of the augmentations, so that a sample's place says nothing about its crop.
_ORDER, _WINDOW_ORDER = 1 << 62, 3 << 61


def random_order(samples: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of 0 .. samples-1 (int64) that depends on (seed, epoch) alone."""
    return permutation(samples, seed ^ _ORDER, epoch)


def quasi_random_order(
    pages: np.ndarray, window: int, seed: int, epoch: int, lanes: int = 1, groups: np.ndarray | None = None
) -> np.ndarray:
    """A permutation that reads a file too large for memory nearly in sequence.

    `pages` (int64, one a sample) is the page that holds a sample. Pages are shuffled and dealt to `lanes` of equally
    many samples (or one more), where a page at the border of two lanes is cut. Each lane mixes `window` pages at a
    time, and the order takes a sample of each lane in turn: a rank that reads order[rank::world_size], where
    world_size divides `lanes`, reads whole lanes, so each page is read by one rank, but for those that are cut.
    `groups` (int64, one a sample): the samples of a lower number come first, dealt to all lanes; no page has two.
    """
    page_ids, page_of_sample = np.unique(pages, return_inverse=True)
    place = np.argsort(random_order(len(page_ids), seed ^ _WINDOW_ORDER, epoch))[page_of_sample]
    draws = (sample_keys(seed ^ _ORDER, epoch, np.arange(len(pages))) >> np.uint64(32)) * 2.0**-32
    by_page, borders = np.argsort(place, kind="stable"), []
    if groups is not None:
        by_page = grouped(by_page, groups[by_page])
        borders = np.flatnonzero(np.diff(groups[by_page])) + 1
    order, done = np.empty(len(pages), np.int64), 0
    for group in np.split(by_page, borders):
        part = order[done : done + len(group)]  # a view; each of its lanes is of one lane of the whole
        for lane, samples in enumerate(np.array_split(group, lanes)):
            if len(samples):
                part[lane::lanes] = samples[_mixed(place[samples], draws[samples], max(window, 1))]
        done += len(group)
    return order


def _mixed(places: np.ndarray, draws: np.ndarray, window: int) -> np.ndarray:
    """An order of samples whose pages have ascending places, by draws from 0 to 1, with `window` pages open at a time.

    Each sample comes within half a window before or behind the middle of its page. What would come before the first
    page or behind the last one is reflected there, so that as many pages are read at the ends as in between.
    """
    places = np.cumsum(np.diff(places, prepend=places[0]) != 0)
    count = int(places[-1]) + 1
    if window >= count:
        return np.argsort(draws, kind="stable")
    when = np.abs(places + 0.5 + (draws - 0.5) * window)
    return np.argsort(np.where(when > count, 2 * count - when, when), kind="stable")


def grouped(order: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """An order with the samples of lower groups first; `groups` (int64): of its samples."""
    return order[np.argsort(groups, kind="stable")]


def rank_share(order: np.ndarray, batch_size: int, rank: int, world_size: int, drop_last: bool) -> np.ndarray:
    """The part of a global order that one rank reads.

    With `drop_last` every rank gets the same whole number of batches and the rest of the order is left
    out; without, every sample goes to exactly one rank (shares differ by at most one sample).
    Step k of all ranks together reads a contiguous piece of the order.
    """
    if drop_last:
        order = order[: len(order) // (batch_size * world_size) * batch_size * world_size]
    return order[rank::world_size]


def repeated(order: np.ndarray, repeats: int, step: int, lanes: int = 1) -> np.ndarray:
    """Repeated augmentation: each sample `repeats` times in a row, as views `sample + step * n`.

    "Augment your batch", Hoffer et al. 2020; the order is DeiT's RASampler's: ranks take the views in
    turn, so the views of a sample go to different ranks. In an order of `lanes` they stay in their lane.
    """
    views = np.arange(repeats) * step
    rounds = order[: len(order) // lanes * lanes].reshape(-1, 1, lanes)
    return (rounds + views[None, :, None]).reshape(-1)


def repeated_length(num_samples: int, world_size: int) -> int:
    """Views of an epoch with repeated augmentation, as DeiT's RASampler has it.

    Each rank takes floor(floor(num_samples / 256) * 256 / world_size): an epoch is as long as without
    repetition, and holds a part of the photos only.
    """
    return num_samples // 256 * 256 // world_size * world_size
