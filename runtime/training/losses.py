"""The loss: of labels, with Mixup, of a teacher (distillation), of MESA."""

import contextlib
from pathlib import Path

import numpy as np
import timm.loss
import torch
from timm.data import Mixup
from torch import nn
from torch.nn import functional as F

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


class Objective:
    """The loss of a transformer recipe for a batch, called inside autocast.

    `network` is trained, `average` the moving average of its weights (or None), `teacher` a frozen model (or None).
    """

    def __init__(self, settings, classes: int, network: nn.Module, average: nn.Module | None, teacher, rank: int):
        training = settings.training
        self._settings, self._network, self._average, self._teacher = settings, network, average, teacher
        self._mixup = None
        if training.mixup > 0 or training.cutmix > 0:
            self._mixup = Mixup(
                training.mixup, training.cutmix, prob=training.mix_probability, switch_prob=training.mix_switch,
                label_smoothing=0.0 if training.loss == "bce" else training.label_smoothing, num_classes=classes,
            )  # fmt: skip
        self._label_loss = label_loss(
            training.loss, training.label_smoothing, self._mixup is not None, training.bce_target_threshold
        )
        self._rank, self._epoch, self._step = rank, 0, 0

    def start_epoch(self, epoch: int, batch: int = 0) -> None:
        """The next call is for `batch` of `epoch`.

        Draws depend on the seed, the epoch, the batch and the rank alone, so a resumed run draws the same.
        """
        self._epoch, self._step = epoch, batch

    def _mixes(self, images: torch.Tensor, labels: torch.Tensor):
        # timm's Mixup draws from NumPy's global generator
        np.random.seed([self._settings.training.seed, self._epoch, self._step, self._rank])
        self._step += 1
        return self._mixup(images, labels)

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
