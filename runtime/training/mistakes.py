"""What a model gets wrong, as files of a run folder: worst.png and worst.json, classes.csv and classes.png,
confusion.csv and confusion.png."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from beton.errors import DamagedSample, UserError
from beton.files import publish
from beton.format.joined import open_beton
from beton.format.photo_files import to_rgb
from beton.inspecting.preview import as_image
from beton.loading.base import Pipeline
from runtime.launch import Rank
from runtime.training import predictions as of_model
from runtime.training.metrics import average_precisions
from runtime.training.predictions import Collector, Predictions

_COLUMNS, _TILE, _TEXT = 8, 160, 46


class Photos:
    """The photos of a data set, a .beton or a folder of class folders, by their number."""

    def __init__(self, dataset: str, cache: str | None = None):
        self._file = self._source = None
        if Path(dataset).is_dir():
            from beton.sources.imagefolder import open_source

            self._source = open_source(dataset, "val")
        else:
            self._file = open_beton(dataset, cache)
            self._names = self._file.names

    def name(self, sample: int) -> str:
        """The path in its source, where that is known; else "sample 17"."""
        if self._source is not None:
            return self._source.stored_name(sample)
        return self._names[sample] if self._names else f"sample {sample}"

    def image(self, sample: int) -> Image.Image:
        """The photo, whole. Raises DamagedSample, or OSError for a file that is gone."""
        if self._source is not None:
            return to_rgb(self._source.read(sample)[0])
        return as_image(self._file.value(sample, "image", self._file.verified(sample)["image"]))

    def close(self) -> None:
        """Let go of the data set."""
        if self._file is not None:
            self._file.close()


class Outcome:
    """What section `logging` asks for of an evaluation: `collector` gets its outputs, None where nothing is asked for
    or it is not the `last`; then write()."""

    def __init__(self, settings, rank: Rank, validation: Pipeline, last: bool = True):
        self._settings, self._rank, wanted = settings, rank, settings.logging.worst or settings.logging.predictions
        self.collector = Collector(validation) if last and wanted else None

    def write(self, folder: Path | None) -> None:
        """Gather the outputs of all ranks, and write the files into rank 0's folder."""
        if self.collector is None:
            return
        predictions, logging = self.collector.gather(self._rank), self._settings.logging
        if predictions is not None:
            data, keep = self._settings.data, bool(logging.predictions)
            report(folder, predictions, data.val_dataset, logging.worst, keep, data.cache)


def report(folder: Path, predictions: Predictions, dataset: str, worst: int, keep: bool, cache=None) -> None:
    """Write the files into a run folder; `worst` photos (0: none of these files), `keep` predictions.npz too.

    Raises UserError where a file cannot be written.
    """
    from runtime.training.mistakes_plots import bars_png, confusion_png  # matplotlib takes a while

    photos = Photos(dataset, cache)
    try:
        if keep:
            names = [photos.name(sample) for sample in predictions.samples.tolist()]
            of_model.save(predictions, names, folder / "predictions.npz")
        if not worst:
            return
        found = worst_of(predictions, worst)
        for entry in found:
            entry["name"] = photos.name(entry["sample"])
        files = {"worst.json": json.dumps(found, indent=1) + "\n", "worst.png": _sheet(found, photos)}
        header, rows = by_class(predictions)
        files["classes.csv"] = _csv([header, *rows])
        files["classes.png"] = bars_png(header[2], predictions.classes, [row[2] for row in rows])
        if not predictions.multi_label:
            matrix = confusion(predictions)
            rows = [[name, *row] for name, row in zip(predictions.classes, matrix.tolist(), strict=True)]
            files["confusion.csv"] = _csv([["class \\ predicted", *predictions.classes], *rows])
            files["confusion.png"] = confusion_png(predictions.classes, matrix)
        for name, content in files.items():
            publish(folder / name, content)
        print(f"=> The {len(found)} most confidently wrong photos are in {folder / 'worst.png'}")
    except OSError as error:
        raise UserError(f"cannot write into {folder} ({error.strerror or error})", "free some space") from None
    finally:
        photos.close()


def worst_of(predictions: Predictions, count: int) -> list[dict]:
    """The `count` photos on which the model is wrong and surest of it, the surest first.

    Where a photo has one class: the wrong class with the greatest probability. Where it may have several: the class
    whose probability is farthest from its label, on the wrong side of 0.5. Entries: `sample`, `label`, `predicted`,
    `probability` (of the class that is predicted, or not predicted).
    """
    probabilities, labels, names = predictions.probabilities, predictions.labels, predictions.classes
    rows = np.arange(len(probabilities))
    if not predictions.multi_label:
        chosen = probabilities.argmax(1)
        surest = np.where(chosen != labels, probabilities[rows, chosen], -1)
    else:
        distance = np.abs((labels >= 0.5) - probabilities)
        chosen = distance.argmax(1)
        surest = np.where(distance[rows, chosen] > 0.5, distance[rows, chosen], -1)
    found = []
    for row in np.argsort(-surest, kind="stable")[:count].tolist():
        if surest[row] < 0:
            break
        name, probability = names[chosen[row]], round(float(probabilities[row, chosen[row]]), 6)
        if predictions.multi_label:
            label, predicted = (name, f"no {name}") if labels[row, chosen[row]] >= 0.5 else (f"no {name}", name)
        else:
            label, predicted = names[labels[row]], name
        entry = {"sample": int(predictions.samples[row]), "label": label, "predicted": predicted}
        found.append(entry | {"probability": probability})
    return found


def confusion(predictions: Predictions) -> np.ndarray:
    """How often (int64, C x C) photos of the class of a row were taken for that of a column."""
    count = len(predictions.classes)
    pairs = predictions.labels * count + predictions.probabilities.argmax(1)
    return np.bincount(pairs, minlength=count * count).reshape(count, count)


def by_class(predictions: Predictions) -> tuple[list[str], list[list]]:
    """Header and rows of classes.csv; a fraction of nothing is empty."""
    if predictions.multi_label:
        there, said = predictions.labels >= 0.5, predictions.probabilities >= 0.5
        right = (there & said).sum(0)
        precisions = average_precisions(torch.from_numpy(predictions.outputs), torch.from_numpy(there).float())
        first = ("average_precision", [None if np.isnan(value) else float(value) for value in precisions])
        photos, predicted = there.sum(0), said.sum(0)
    else:
        matrix = confusion(predictions)
        right, photos, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
        first = ("accuracy", _fractions(right, photos))
    header = ["class", "photos", first[0], "predicted", "right", "precision", "recall"]
    columns = (photos.tolist(), first[1], predicted.tolist(), right.tolist())
    columns += (_fractions(right, predicted), _fractions(right, photos))
    return header, [list(row) for row in zip(predictions.classes, *columns, strict=True)]


def _fractions(parts: np.ndarray, wholes: np.ndarray) -> list[float | None]:
    return [part / whole if whole else None for part, whole in zip(parts.tolist(), wholes.tolist(), strict=True)]


def _csv(rows: list[list]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _sheet(found: list[dict], photos: Photos) -> bytes:
    """The contact sheet: each photo, and below it what the model says, what it is, and its name."""
    rows, columns = max(1, -(-len(found) // _COLUMNS)), min(max(len(found), 1), _COLUMNS)
    sheet = Image.new("RGB", (columns * _TILE, rows * (_TILE + _TEXT)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    if not found:
        draw.text((_TILE / 2, _TILE / 2), "no photo is wrong", "black", font, "mm")
    for number, entry in enumerate(found):
        left, top = number % _COLUMNS * _TILE, number // _COLUMNS * (_TILE + _TEXT)
        try:
            photo = photos.image(entry["sample"])
            photo.thumbnail((_TILE - 4, _TILE - 4))
            sheet.paste(photo, (left + (_TILE - photo.width) // 2, top + (_TILE - photo.height) // 2))
        except (DamagedSample, OSError):
            draw.text((left + _TILE / 2, top + _TILE / 2), "cannot be read", "red", font, "mm")
        lines = [f"{entry['predicted']} {entry['probability']:.3f}", f"is {entry['label']}", entry["name"]]
        for line, (text, colour) in enumerate(zip(lines, ("#b00000", "black", "gray"), strict=True)):
            text = _fitting(draw, font, text, keep_end=line == 2)
            draw.text((left + _TILE / 2, top + _TILE + 8 + 14 * line), text, colour, font, "mm")
    png = io.BytesIO()
    sheet.save(png, "PNG")
    return png.getvalue()


def _fitting(draw, font, text: str, keep_end: bool) -> str:
    """The text, shortened to the width of a tile; of a path the end says more."""
    shown = text
    while len(text) > 1 and draw.textlength(shown, font) > _TILE - 6:
        text = text[1:] if keep_end else text[:-1]
        shown = f"…{text}" if keep_end else f"{text}…"
    return shown
