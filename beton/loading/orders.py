"""Traversal orders: which samples a rank reads in an epoch, and in which order."""

import numpy as np

from beton.rng import permutation, sample_keys

# Set apart from the keys of the augmentations, so that a sample's place says nothing about its crop.
_ORDER, _WINDOW_ORDER = 1 << 62, 3 << 61


def random_order(samples: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of 0 .. samples-1 (int64) that depends on (seed, epoch) alone."""
    return permutation(samples, seed ^ _ORDER, epoch)


def quasi_random_order(pages: np.ndarray, window: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation that reads a file too large for memory nearly in sequence.

    `pages` (int64, one a sample) is the page that holds a sample. Pages are shuffled, then samples
    are shuffled within each run of `window` pages: at any time only those pages are needed.
    """
    page_ids, page_of_sample = np.unique(pages, return_inverse=True)
    place = np.argsort(random_order(len(page_ids), seed ^ _WINDOW_ORDER, epoch))
    group = place[page_of_sample] // max(window, 1)
    return np.lexsort((sample_keys(seed ^ _ORDER, epoch, np.arange(len(pages))), group))


def rank_share(order: np.ndarray, batch_size: int, rank: int, world_size: int, drop_last: bool) -> np.ndarray:
    """The part of a global order that one rank reads.

    With `drop_last` every rank gets the same whole number of batches and the rest of the order is left
    out; without, every sample goes to exactly one rank (shares differ by at most one sample).
    Step k of all ranks together reads a contiguous piece of the order.
    """
    if drop_last:
        order = order[: len(order) // (batch_size * world_size) * batch_size * world_size]
    return order[rank::world_size]


def repeated(order: np.ndarray, repeats: int, step: int) -> np.ndarray:
    """Repeated augmentation: each sample `repeats` times in a row, as views `sample + step * n`.

    "Augment your batch", Hoffer et al. 2020; the order is DeiT's RASampler's: ranks take the views in
    turn, so the views of a sample go to different ranks.
    """
    views = np.arange(repeats) * step
    return (order[:, None] + views[None, :]).reshape(-1)


def repeated_length(num_samples: int, world_size: int) -> int:
    """Views of an epoch with repeated augmentation, as DeiT's RASampler has it.

    Each rank takes floor(floor(num_samples / 256) * 256 / world_size): an epoch is as long as without
    repetition, and holds a part of the photos only.
    """
    return num_samples // 256 * 256 // world_size * world_size
