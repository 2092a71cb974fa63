#!/usr/bin/env python
"""Train a vision transformer as its authors did: ViT, DeiT, DeiT III, LeViT, CaiT, ResMLP, FasterViT, ...

    python train_transformers.py --config-file vit_configs/deit3/s_1k_224.yaml \
        --data.train_dataset=train.beton --data.val_dataset=val.beton \
        --data.num_workers=8 --data.in_memory=1 --logging.folder=runs

Cosine schedule with warm-up, AdamW or LAMB, Mixup and CutMix, repeated augmentation, a moving average of
the weights, distillation, MESA: what of it is used, the recipe says. Several GPUs: torchrun, or
--training.distributed=1 --dist.world_size=N. All parameters: --help.
"""

import runtime.start  # noqa: F401  checks the set-up; must come before torch

# isort: split
import contextlib
from pathlib import Path

import torch
from fastargs import Config
from timm.utils import ModelEmaV3

from pipelines.errors import UserError
from runtime import begin, checkpoint, engine, losses, models, optim, schedules, sections
from runtime.config import parse, run
from runtime.data import Data
from runtime.launch import Place
from runtime.launch import run as run_ranks
from runtime.precision import Precision


def declare() -> Config:
    """All sections."""
    config = Config()
    sections.add_data(config)
    sections.add_transformer_training(config)
    sections.add_running(config)
    return config


def main(argv: list[str]) -> None:
    """Read the settings and start the processes."""
    settings = parse(declare(), argv)
    training = settings.training
    if settings.mesa.weight > 0 and training.ema is None:
        raise UserError("MESA needs a moving average of the weights", "set training.ema")
    if (training.mixup > 0 or training.cutmix > 0) and training.batch_size % 2:
        raise UserError(f"Mixup pairs photos, and training.batch_size={training.batch_size} is odd", "make it even")
    if settings.lr.warmup_epochs >= training.epochs:
        what = f"lr.warmup_epochs={settings.lr.warmup_epochs} does not end before training.epochs={training.epochs}"
        print(f"=> {what}: the rate only rises")
    run_ranks(train, settings)


def train(settings, place: Place) -> None:
    """One rank's training, from the first epoch or from a checkpoint to the final weights."""
    training = settings.training
    torch.manual_seed(training.seed)
    torch.backends.cudnn.benchmark = True
    precision = Precision.choose(training.precision, place.device)
    data = Data(settings, place, precision)
    validation = data.validation()
    classes = len(validation.classes)

    model = models.build(settings.model.arch, classes, settings.model.pretrained, **models.options(settings.model))
    model = model.to(place.device, memory_format=torch.channels_last)
    # Before the first step: some models cannot be copied after it
    average = ModelEmaV3(model, decay=training.ema) if training.ema is not None else None
    optimizer = optim.build(training.optimizer, parameter_groups(model, settings), training.momentum, training.eps)
    scaler = precision.scaler()
    start = begin.load_state(settings, place, model, optimizer, scaler, average)
    network = begin.parallel(model, training.compile, place)
    average_model = average.module if average is not None else None
    teacher = open_teacher(settings, classes, place)
    objective = losses.Objective(settings, classes, network, average_model, teacher, place.rank)

    recipe = engine.Recipe(
        model=model,
        network=network,
        optimizer=optimizer,
        objective=objective,
        eval_loss=torch.nn.CrossEntropyLoss(),
        lrs=lambda epoch, count: learning_rates(settings, place, epoch, count),
        resolution=lambda epoch: settings.data.resolution,
        epochs=training.epochs + settings.lr.cooldown_epochs,
        precision=precision,
        scaler=scaler,
        accumulate=training.accumulate,
        clip=training.clip,
        clip_mode=training.clip_mode,
        average=average,
        evaluate_average=bool(training.ema_evaluate),
        start_epoch=objective.start_epoch,
    )
    begin.run(recipe, settings, place, data, validation, start)


def parameter_groups(model: torch.nn.Module, settings) -> list[dict]:
    """Parameters by weight decay and, with lr.layer_decay, by layer."""
    training = settings.training
    if settings.lr.layer_decay is not None:
        return optim.layer_groups(model, training.weight_decay, settings.lr.layer_decay)
    return optim.parameter_groups(model, training.weight_decay, training.bn_wd)


def learning_rates(settings, place: Place, epoch: int, batches: int):
    """The learning rate of each batch of an epoch; batches of one step have the same."""
    training = settings.training
    peak = settings.lr.lr
    if settings.lr.base_batch is not None:
        peak *= training.batch_size * place.world_size * training.accumulate / settings.lr.base_batch
    steps = -(-batches // training.accumulate)
    lrs = schedules.warmup_and_cosine(settings.lr, peak, training.epochs, steps)(epoch)
    return lrs.repeat(training.accumulate)[:batches]


def open_teacher(settings, classes: int, place: Place) -> torch.nn.Module | None:
    """The frozen model that the student learns from, or None."""
    told = settings.distillation
    if told.mode == "none":
        return None
    teacher = models.build(told.teacher, classes, pretrained=told.teacher_weights is None)
    models.sides.check(told.teacher, teacher, [settings.data.resolution], contextlib.nullcontext())
    if told.teacher_weights is not None:
        path = Path(told.teacher_weights)
        checkpoint.load_weights(teacher, checkpoint.load(path), path)
    teacher.requires_grad_(False).eval()
    return teacher.to(place.device, memory_format=torch.channels_last)


if __name__ == "__main__":
    run(main)
