"""Do two loaders give the same? The first images and labels of each in order, compared before anything is timed."""

from pathlib import Path

import numpy as np

# In standard deviations of the reference, so that it does not matter whether the stages normalise. Filters of other
# loaders, with and without antialiasing, differ from the reference by 0.02 to 0.1; the next photo, or one that is
# mirrored, by 0.5 and more.
_MOST = 0.2
_GAIN = (0.85, 1.15)  # of a channel against the reference's, by least squares
_OFFSET = 0.2
_SAME_PHOTOS = 0.9  # correlation


def save_sample(pipeline, count: int, path: Path) -> None:
    """The first batch of a pipeline and the labels of its first `count` samples to a .npz file."""
    images, labels, layout = None, [], ""
    batches = pipeline.batches(0)
    for batch, of_batch in batches:
        if images is None:
            images = batch.float().cpu().contiguous().numpy()
            layout = _memory_format(batch)
        labels += of_batch.tolist()
        if len(labels) >= count:
            break
    batches.close()
    classes = np.array(pipeline.classes, dtype=str)
    np.savez(path, images=images, labels=labels[:count], classes=classes, count=pipeline.num_samples, layout=layout)


def _memory_format(batch) -> str:
    import torch

    return "channels_last" if batch.is_contiguous(memory_format=torch.channels_last) else "not channels_last"


def compare(path: Path, reference: Path) -> tuple[float | None, str | None]:
    """Mean absolute difference of the images of two files of save_sample(), in deviations, and why they are not
    the same, or None."""
    with np.load(path) as found, np.load(reference) as wanted:
        found, wanted = dict(found), dict(wanted)
    images, expected = found["images"].astype(np.float64), wanted["images"].astype(np.float64)
    if images.shape != expected.shape:
        return None, f"its images are {_shape(images)}, the reference's {_shape(expected)}"
    difference = float(np.abs(images - expected).mean() / max(expected.std(), 1e-12))
    return difference, _why_different(found, wanted, images, expected, difference)


def _why_different(found: dict, wanted: dict, images: np.ndarray, expected: np.ndarray, mean: float) -> str | None:
    if found["layout"] != "channels_last":
        return "its images are not in channels_last memory format"
    if found["count"] != wanted["count"]:
        return f"it has {found['count']} samples, the reference {wanted['count']}"
    if found["classes"].size and wanted["classes"].size and found["classes"].tolist() != wanted["classes"].tolist():
        return "its classes have other names, or another order"
    wrong = int((found["labels"] != wanted["labels"]).sum())
    if wrong:
        return f"{wrong} of its first {len(wanted['labels'])} labels are not the reference's"
    backwards = _correlation(images[:, ::-1], expected)
    if backwards > _SAME_PHOTOS and backwards > _correlation(images, expected) + 1e-3:
        return "its channels are in the order blue, green, red"
    for name, gain, offset in zip(("red", "green", "blue"), *_line(images, expected), strict=False):
        if not _GAIN[0] <= gain <= _GAIN[1] or abs(offset) > _OFFSET:
            how = f"its {name} is {gain:.3g} x the reference's, moved by {offset:+.3g} standard deviations"
            return f"it normalises otherwise: {how}"
    if mean > _MOST:
        return f"its pixels differ from the reference's by {mean:.2f} standard deviations (at most {_MOST})"
    return None


def _line(images: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gain of each channel against the reference's, by least squares, and how far its mean is off, in deviations."""
    x, y = (a.transpose(1, 0, 2, 3).reshape(a.shape[1], -1) for a in (expected, images))
    middle, spread = x.mean(1), x.var(1)
    gain = ((x - middle[:, None]) * (y - y.mean(1)[:, None])).mean(1) / np.maximum(spread, 1e-12)
    return gain, (y.mean(1) - middle) / np.sqrt(np.maximum(spread, 1e-12))


def _correlation(images: np.ndarray, expected: np.ndarray) -> float:
    """Mean over the channels of the correlation with the reference's."""
    pairs = zip(images.swapaxes(0, 1), expected.swapaxes(0, 1), strict=True)
    return float(np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs]))


def _shape(images: np.ndarray) -> str:
    return " x ".join(map(str, images.shape))
