"""The loss: of labels, with Mixup, of a teacher (distillation), of MESA."""

import contextlib
from pathlib import Path

import numpy as np
import timm.loss
import torch
from timm.data import Mixup
from torch import nn
from torch.nn import functional as F

from beton.errors import UserError
from runtime.training import checkpoint, models
from runtime.training.models import input_size


def label_loss(name: str, smoothing: float, mixed: bool, threshold: float | None) -> nn.Module:
    """The loss of outputs (N x C) against labels (N) or, when `mixed`, against soft targets (N x C).

    `ce` is cross entropy, `bce` the mean of the binary cross entropies of all classes, with targets
    above `threshold` set to 1 (DeiT III: 0). Mixup smooths the targets itself.
    """
    if name == "bce":
        smoothing = 0.0 if mixed else smoothing
        return timm.loss.BinaryCrossEntropy(smoothing=smoothing, target_threshold=threshold)
    if mixed:
        return timm.loss.SoftTargetCrossEntropy()
    return nn.CrossEntropyLoss(label_smoothing=smoothing)


class MultiLabelLoss(nn.Module):
    """The mean of the binary cross entropies of outputs and targets, both N x C, targets 0..1.

    `smoothing` s makes a target y into y (1 - s) + s / 2: label smoothing of two outcomes, as nn.CrossEntropyLoss
    defines it. Targets above `threshold` are 1 first, the others 0.
    """

    def __init__(self, smoothing: float = 0.0, threshold: float | None = None):
        super().__init__()
        self.smoothing, self.threshold = smoothing, threshold

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """A number."""
        targets = targets.to(outputs.dtype) if self.threshold is None else (targets > self.threshold).to(outputs.dtype)
        targets = targets * (1 - self.smoothing) + self.smoothing / 2
        return F.binary_cross_entropy_with_logits(outputs, targets)


def distillation_loss(mode: str, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Student outputs against a teacher's (both N x C).

    `hard`: cross entropy with the teacher's prediction; `soft`: temperature ** 2 * KL(teacher || student) /
    (N * C), divided by the number of elements as in DeiT.
    """
    if mode == "hard":
        return F.cross_entropy(student, teacher.argmax(1))
    student, teacher = F.log_softmax(student / temperature, 1), F.log_softmax(teacher / temperature, 1)
    return F.kl_div(student, teacher, reduction="sum", log_target=True) * temperature**2 / student.numel()


def mesa_loss(student: torch.Tensor, average: torch.Tensor, temperature: float, factor: float | None) -> torch.Tensor:
    """MESA: KL(moving average || student) of softened outputs (N x C), mean over the batch, times `factor`.

    FasterViT trains with temperature 3 and factor 50; the authors' own factor is temperature ** 2
    (`factor` None) with temperature 5. "Sharpness-Aware Training for Free", Du et al. 2022.
    """
    student, average = F.log_softmax(student / temperature, 1), F.log_softmax(average / temperature, 1)
    divergence = F.kl_div(student, average, reduction="batchmean", log_target=True)
    return divergence * (temperature**2 if factor is None else factor)


def open_teacher(settings, classes: int, device: torch.device) -> nn.Module | None:
    """The frozen model of section `distillation`, or None."""
    distillation = settings.distillation
    if distillation.mode == "none":
        return None
    teacher = models.build(distillation.teacher, classes, pretrained=distillation.teacher_weights is None)
    input_size.check(distillation.teacher, teacher, [settings.data.resolution], contextlib.nullcontext())
    if distillation.teacher_weights is not None:
        path = Path(distillation.teacher_weights)
        checkpoint.load_weights(teacher, checkpoint.load(path), path)
    teacher.requires_grad_(False).eval()
    return teacher.to(device, memory_format=torch.channels_last)


def _check_multi_label(settings) -> None:
    """Raise UserError for a recipe that asks for one class a photo."""
    what = "the labels are a number for each class, and {} is for photos of one class"
    if settings.training.loss != "bce":
        raise UserError(what.format("training.loss=ce"), "set training.loss=bce")
    if settings.distillation.mode != "none":
        raise UserError(what.format("distillation"), "set distillation.mode=none")
    if settings.mesa.weight > 0:
        raise UserError(what.format("MESA"), "set mesa.weight=0")


def _paired(rows: torch.Tensor) -> torch.Tensor:
    """The rows of a batch in an order in which timm, that mixes row i with row N - 1 - i, mixes those that were N / 2
    apart: the ranks share a batch of G photos out in turn, so these are G / 2 apart there, on any number of ranks."""
    half = len(rows) // 2
    return torch.cat([rows[:half], rows[half:].flip(0)])


class Objective:
    """The loss of a transformer recipe for a batch, called inside autocast.

    `network` is trained, `average` the moving average of its weights (or None), `teacher` a frozen model (or None).
    `multi_label`: labels are N x C, of 0..1.
    """

    def __init__(
        self, settings, classes: int, network: nn.Module, average: nn.Module | None, teacher,
        multi_label: bool = False,
    ):  # fmt: skip
        training = settings.training
        self._multi_label = multi_label
        self._settings, self._network, self._average, self._teacher = settings, network, average, teacher
        self._mixup = None
        if training.mixup > 0 or training.cutmix > 0:
            self._mixup = Mixup(
                training.mixup, training.cutmix, prob=training.mix_probability, switch_prob=training.mix_switch,
                label_smoothing=0.0 if training.loss == "bce" else training.label_smoothing, num_classes=classes,
            )  # fmt: skip
        if multi_label:
            _check_multi_label(settings)
            smoothing = 0.0 if self._mixup is not None else training.label_smoothing
            self._label_loss = MultiLabelLoss(smoothing, training.bce_target_threshold)
        else:
            self._label_loss = label_loss(
                training.loss, training.label_smoothing, self._mixup is not None, training.bce_target_threshold
            )
        self._epoch, self._step = 0, 0

    def start_epoch(self, epoch: int, batch: int = 0) -> None:
        """The next call is for `batch` of `epoch`.

        Draws depend on the seed, the epoch and the batch alone, so a resumed run draws the same, and all ranks do.
        """
        self._epoch, self._step = epoch, batch

    def _mixes(self, images: torch.Tensor, labels: torch.Tensor):
        # timm's Mixup draws from NumPy's global generator
        np.random.seed([self._settings.training.seed, self._epoch, self._step])
        self._step += 1
        images, labels = _paired(images), _paired(labels)
        if not self._multi_label:
            return self._mixup(images, labels)
        # Each photo as a class of its own: the mixed one-hot rows say how much of which photos is in each row
        self._mixup.num_classes = len(labels)
        images, shares = self._mixup(images, torch.arange(len(labels), device=labels.device))
        return images, shares.to(labels.dtype) @ labels

    def _mesa_is_active(self) -> bool:
        mesa = self._settings.mesa
        return mesa.weight > 0 and self._epoch / self._settings.training.epochs > mesa.start

    def __call__(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean loss of a batch: images N x 3 x H x W, labels N."""
        if self._mixup is not None:
            images, labels = self._mixes(images, labels)
        outputs = self._network(images)
        # Models with a distillation head return the outputs of both heads
        student, distilled = outputs if isinstance(outputs, tuple) else (outputs, outputs)
        loss = self._label_loss(student, labels)
        if self._teacher is not None:
            distillation = self._settings.distillation
            with torch.no_grad():
                teacher = self._teacher(images)
            of_teacher = distillation_loss(distillation.mode, distilled, teacher, distillation.temperature)
            loss = (1 - distillation.alpha) * loss + distillation.alpha * of_teacher
        if self._mesa_is_active():
            mesa = self._settings.mesa
            with torch.no_grad():
                average = self._average(images)
            loss = loss + mesa.weight * mesa_loss(student, average, mesa.temperature, mesa.factor)
        return loss
