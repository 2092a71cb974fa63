"""What validation says of a model: top-1 and top-5 where a photo has one class, mean average precision where it may
have several."""

import numpy as np
import torch
import torch.distributed as dist

from beton.errors import UserError
from beton.loading.base import Pipeline
from runtime.launch import Rank


def metrics_of(validation: Pipeline, rank: Rank):
    """The metrics for a pipeline's labels. update() takes each batch, and waits for no GPU; all ranks compute()."""
    return (MeanAveragePrecision if validation.multi_label else TopK)(validation, rank)


class TopK:
    """top_1 and top_5 of outputs N x C and labels N: fractions of the photos of all ranks."""

    def __init__(self, validation: Pipeline, rank: Rank):
        self._most, self._rank = min(5, len(validation.classes)), rank
        # The first and the first five answers that are right. On the device: to read them waits for it
        self._right = torch.zeros(2, dtype=torch.int64, device=rank.device)

    def update(self, outputs: torch.Tensor, labels: torch.Tensor) -> None:
        """Count a batch."""
        right = outputs.float().topk(self._most).indices == labels[:, None]
        self._right += torch.stack([right[:, 0].sum(), right.sum()])

    def compute(self, images: int) -> dict[str, float]:
        """The fractions of `images`, the number of photos on all ranks."""
        if self._rank.world_size > 1:
            dist.all_reduce(self._right)
        top_1, top_5 = self._right.tolist()
        return {"top_1": top_1 / images, "top_5": top_5 / images}


class MeanAveragePrecision:
    """mean_ap of outputs N x C and labels N x C (0..1; a class is there from 0.5 on)."""

    def __init__(self, validation: Pipeline, rank: Rank):
        self._path, self._rank = validation.task.dataset, rank
        empty = torch.empty(0, len(validation.classes), device=rank.device)
        self._outputs, self._labels = [empty], [empty]

    def update(self, outputs: torch.Tensor, labels: torch.Tensor) -> None:
        """Keep a batch, since the exact precision needs all of them: N x C numbers on the device."""
        self._outputs.append(outputs.float())
        self._labels.append(labels.float())

    def compute(self, images: int) -> dict[str, float]:
        """The mean over the classes that some photo has; raises UserError for labels that are not from 0 to 1."""
        outputs, labels = torch.cat(self._outputs).cpu(), torch.cat(self._labels).cpu()
        if self._rank.world_size > 1:
            ranks = [None] * self._rank.world_size
            dist.all_gather_object(ranks, (outputs, labels))
            outputs, labels = (torch.cat(parts) for parts in zip(*ranks, strict=True))
        if not ((labels >= 0) & (labels <= 1)).all():
            raise UserError(f"the labels of {self._path} are not all from 0 to 1", "write it again")
        precisions = average_precisions(outputs, labels)
        if np.isnan(precisions).all():
            raise UserError(f"no photo of {self._path} has any class", "validate with photos that have some")
        return {"mean_ap": float(np.nanmean(precisions))}


def average_precisions(outputs: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """The average precision of each class (float64, C) for scores and labels, N x C, by torchmetrics: sum over the
    thresholds of precision times the gain in recall, as scikit-learn has it. NaN for classes that no photo has.

    The scores are replaced by their ranks: torchmetrics would take the sigmoid of outputs, in which great ones are
    equal, and leave those that happen to lie in 0..1 as they are.
    """
    from torchmetrics.functional.classification import binary_average_precision  # takes a while to import

    there, found = labels >= 0.5, []
    for scores, is_there in zip(outputs.T, there.T, strict=True):
        ranks = torch.unique(scores, return_inverse=True)[1].double() / len(scores)
        found.append(binary_average_precision(ranks, is_there.long()).item() if is_there.any() else np.nan)
    return np.array(found)
