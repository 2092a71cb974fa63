"""Accuracy by class, and a confusion matrix, as PNG."""

import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_MOST_BARS, _MOST_NAMES, _MOST_NUMBERS = 50, 60, 20


def bars_png(what: str, classes: list[str], values: list[float | None]) -> bytes:
    """A bar for each class that has a value (0..1), the least first; at most 50 of them."""
    known = sorted((value, name) for value, name in zip(values, classes, strict=True) if value is not None)
    shown = known[:_MOST_BARS]
    figure = _figure(7, 1.2 + 0.22 * len(shown))
    axes = figure.add_subplot()
    axes.barh(range(len(shown)), [value for value, _ in shown], color="#0072B2")
    axes.set_yticks(range(len(shown)), [_literal(name) for _, name in shown], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    left = f", the {len(shown)} lowest of {len(known)} classes" if len(shown) < len(known) else ""
    axes.set_xlabel(f"{what.replace('_', ' ')}{left}")
    return _png(figure)


def confusion_png(classes: list[str], matrix: np.ndarray) -> bytes:
    """The matrix (C x C counts; a row for each class, a column for each prediction), coloured by the share of the row;
    with numbers where there are at most 20 classes."""
    count = len(classes)
    side = float(np.clip(0.3 * count, 4, 16))
    figure = _figure(side + 2, side + 1.5)
    axes = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, shrink=0.7, label="share of the class")
    if count <= _MOST_NAMES:
        names = [_literal(name) for name in classes]
        axes.set_xticks(range(count), names, rotation=90, fontsize=8)
        axes.set_yticks(range(count), names, fontsize=8)
    if count <= _MOST_NUMBERS:
        for row, column in np.argwhere(matrix):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, matrix[row, column], ha="center", va="center", color=colour, fontsize=7)
    axes.set_xlabel("predicted")
    axes.set_ylabel("class")
    return _png(figure)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _literal(name: str) -> str:
    """A name as it is, not as a formula."""
    return name.replace("$", r"\$")


def _png(figure: Figure) -> bytes:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=110, metadata={"Software": None})
    return png.getvalue()
