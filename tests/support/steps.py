"""Steps of a transformer recipe, on whatever device: Mixup, CutMix, MESA, clipping, accumulation, a moving average."""

from types import SimpleNamespace

import pytest
import torch
from timm.utils import ModelEmaV3
from torch import nn

from runtime.launch import Rank
from runtime.training import engine, losses, models, optim
from runtime.training.checkpoint import Position
from runtime.training.precision import Precision

META = torch.device("meta")


class Over(Exception):
    """No batch is left; what an epoch reads of the device at its end is not asked for."""


class Batches:
    """Batches of so many `rows` on a device, each class of a colour of its own."""

    classes, left_out, num_samples, times, multi_label = ["a", "b", "c"], {}, 10, None, False
    window = None

    def __init__(self, device=META, rows=(4, 4, 2)):
        self.device, self.rows = torch.device(device), rows

    def __len__(self):
        return len(self.rows)

    def samples(self, epoch, batch):
        return [batch]

    def batches(self, epoch, start=0):
        for count in self.rows:
            labels = torch.arange(count, device=self.device) % 3
            images = torch.zeros(count, 3, 32, 32, device=self.device) + labels[:, None, None, None]
            yield images.contiguous(memory_format=torch.channels_last), labels
        raise Over


def settings(loss):
    """Of the sections that an Objective reads."""
    training = SimpleNamespace(
        mixup=0.8, cutmix=1.0, mix_probability=1.0, mix_switch=0.5, loss=loss, label_smoothing=0.1,
        bce_target_threshold=0.0, seed=3, epochs=100,
    )  # fmt: skip
    mesa = SimpleNamespace(weight=0.1, start=0, temperature=3, factor=50)
    return SimpleNamespace(training=training, mesa=mesa, distillation=SimpleNamespace(mode="none"))


def recipe(arch, optimizer, spoil=lambda loss: loss, device=META, precision="none"):
    """A recipe for three classes; `spoil(loss)` may do what a step must not."""
    torch.manual_seed(0)
    size = {"img_size": 32} if "vit" in arch else {}
    model = models.build(arch, 3, **size)
    average = ModelEmaV3(model, decay=0.9).to(device)  # on meta it cannot be made
    model = model.to(device, memory_format=torch.channels_last)
    groups = optim.parameter_groups(model, 0.1, False)
    built = optim.build(optimizer, groups, 0.9, fused=torch.device(device).type == "cuda")
    objective = losses.Objective(settings("bce" if optimizer == "lamb" else "ce"), 3, model, average.module, None)
    of_device = Precision(precision, "cuda" if torch.device(device).type == "cuda" else "cpu")
    return engine.Recipe(
        model=model, network=model, optimizer=built, objective=lambda *batch: spoil(objective(*batch)),
        eval_loss=nn.CrossEntropyLoss(), lrs=lambda epoch, count: [0.01] * count, resolution=None, epochs=1,
        precision=of_device, scaler=of_device.scaler(), accumulate=2, clip=0.1,
        clip_mode={"sgd": "agc", "adamw": "norm", "lamb": "value"}[optimizer], average=average,
        start_epoch=objective.start_epoch,
    )  # fmt: skip


def sums_of(batches):
    """An epoch that begins. (To make it sends numbers to the device.)"""
    return engine.EpochSums(Rank(0, 1, batches.device), batches, Position(1))


def train(recipe, sums=None):
    """Train an epoch but for its end; returns its sums."""
    recipe.start_epoch(1, 0)
    sums = sums or sums_of(Batches())
    with pytest.raises(Over):
        engine.train_epoch(recipe, sums, show_loss=True)
    return sums
