"""Tests of distributions, and the exact resize by area."""

import numpy as np
import torch


def area_weights(length: int, size: int) -> np.ndarray:
    """What share of each of `length` pixels lies in each of `size` equal parts (size x length, rows sum to 1)."""
    edges = np.arange(size + 1)[:, None] * length / size
    low, high = np.maximum(edges[:-1], np.arange(length)), np.minimum(edges[1:], np.arange(1, length + 1))
    return np.maximum(high - low, 0) * size / length


def resized_by_area(photo: np.ndarray, box, size) -> np.ndarray:
    """A box (top, left, height, width) of a photo resized by area in float64."""
    top, left, height, width = box
    rows, columns = area_weights(height, size[0]), area_weights(width, size[1])
    part = photo[top : top + height, left : left + width].astype(float)
    return np.einsum("yr,rxc,zx->yzc", rows, part, columns, optimize=True)


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """Decibels; about 100 where the two are the same."""
    return 10 * np.log10(255**2 / max(np.mean((image.astype(float) - reference) ** 2), 1e-6))


def two_sample_p(a, b) -> float:
    """p-value of the Kolmogorov-Smirnov test that two samples have one distribution (asymptotic)."""
    a, b = np.sort(a), np.sort(b)
    both = np.concatenate([a, b])
    gap = np.searchsorted(a, both, "right") / len(a) - np.searchsorted(b, both, "right") / len(b)
    return _kolmogorov(np.abs(gap).max() * np.sqrt(len(a) * len(b) / (len(a) + len(b))))


def uniform_p(values) -> float:
    """p-value of the Kolmogorov-Smirnov test that values are uniform in [0, 1) (asymptotic)."""
    values, n = np.sort(values), len(values)
    steps = np.arange(n + 1) / n
    return _kolmogorov(max((steps[1:] - values).max(), (values - steps[:-1]).max()) * np.sqrt(n))


def counts_p(*counts) -> float:
    """p-value of the chi-square test that rows of counts have one distribution (asymptotic)."""
    table = np.array(counts, dtype=np.float64)
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    statistic = ((table - expected) ** 2 / expected).sum()
    return torch.special.gammaincc(torch.tensor(freedom / 2), torch.tensor(statistic / 2)).item()


def _kolmogorov(x: float) -> float:
    if x < 0.2:
        return 1.0
    k = np.arange(1, 101)
    return float(np.clip(2 * np.sum((-1.0) ** (k - 1) * np.exp(-2 * (k * x) ** 2)), 0, 1))
