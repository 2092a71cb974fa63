"""What a model says of every validation photo, gathered from all ranks, and what of it goes to the run folder."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from beton.errors import UserError
from beton.files import partial_path
from beton.loading.base import Pipeline
from runtime.launch import Rank


@dataclass(frozen=True)
class Predictions:
    """Of N photos, in the data set's order: `samples` (int64, N; their numbers there), `outputs` of the model before
    softmax or sigmoid (float32, N x C), `labels` (int64, N, or float32, N x C, where a photo may have several classes).
    """

    samples: np.ndarray
    outputs: np.ndarray
    labels: np.ndarray
    classes: list[str]

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Softmax of the outputs, or sigmoid where a photo may have several classes: float64, N x C."""
        outputs = torch.from_numpy(self.outputs).double()
        return (outputs.sigmoid() if self.multi_label else outputs.softmax(1)).numpy()

    @property
    def multi_label(self) -> bool:
        """Whether a photo may have several classes."""
        return self.labels.ndim == 2


class Collector:
    """Takes the batches of this rank's share of validation as they are evaluated."""

    def __init__(self, validation: Pipeline):
        self._pipeline = validation
        self._parts: list[tuple] = []

    def add(self, batch: tuple, number: int, outputs: torch.Tensor) -> None:
        """Keep the outputs (N x C) of batch `number`. Its photos are its `indices`, where it has them."""
        samples = getattr(batch, "indices", None)
        if samples is None:
            samples = torch.from_numpy(self._pipeline.samples(0, number))
        # They stay on the device, since a copy would wait for it
        self._parts.append((samples.clone(), outputs.float(), batch[1].clone()))

    def gather(self, rank: Rank) -> Predictions | None:
        """The predictions of all ranks, on rank 0; None on the others."""
        parts = [tuple(column.cpu().numpy() for column in part) for part in self._parts]
        if rank.world_size > 1:
            ranks = [None] * rank.world_size if rank.first else None
            dist.gather_object(parts, ranks)
            if not rank.first:
                return None
            parts = [part for of_rank in ranks for part in of_rank]
        samples, outputs, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(samples, kind="stable")
        return Predictions(samples[order], outputs[order], labels[order], self._pipeline.classes)


def save(predictions: Predictions, names: list[str], path: Path) -> None:
    """Write predictions.npz: the arrays of Predictions, and the photos' names, by name. Raises UserError."""
    aside = partial_path(path)
    arrays = {name: getattr(predictions, name) for name in ("samples", "outputs", "labels")}
    try:
        with open(aside, "wb") as file:
            np.savez_compressed(file, names=np.array(names), classes=np.array(predictions.classes), **arrays)
        os.replace(aside, path)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error})", "free some space") from None
    finally:
        aside.unlink(missing_ok=True)
