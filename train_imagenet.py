#!/usr/bin/env python
"""Train a ResNet (or any torchvision or timm model) by ffcv-imagenet's recipe.

    python train_imagenet.py --config-file rn_configs/rn18_16_epochs.yaml \
        --data.train_dataset=train.beton --data.val_dataset=val.beton \
        --data.num_workers=8 --data.in_memory=1 --logging.folder=runs

SGD with momentum, a learning rate that rises and falls linearly, images that grow during training,
label smoothing, BlurPool, flip test-time augmentation. Several GPUs: torchrun, or
--training.distributed=1 --dist.world_size=N. All parameters: --help.
"""

import runtime.start  # noqa: F401  checks the set-up; must come before torch

# isort: split
import torch
from fastargs import Config

from pipelines.errors import UserError
from runtime import begin, engine, models, optim, schedules, sections
from runtime.config import parse, run
from runtime.data import Data
from runtime.launch import Place
from runtime.launch import run as run_ranks
from runtime.precision import Precision


def declare() -> Config:
    """All sections."""
    config = Config()
    sections.add_data(config)
    sections.add_training(config)
    sections.add_running(config)
    return config


def main(argv: list[str]) -> None:
    """Read the settings and start the processes."""
    settings = parse(declare(), argv)
    side, lr, epochs = settings.resolution, settings.lr, settings.training.epochs
    if side.min_res > side.max_res:
        raise UserError("resolution.min_res is larger than resolution.max_res", "exchange them")
    if side.start_ramp > side.end_ramp:
        raise UserError("resolution.start_ramp is later than resolution.end_ramp", "exchange them")
    if lr.lr_schedule_type == "cyclic" and lr.lr_peak_epoch >= epochs:
        print(f"=> lr.lr_peak_epoch={lr.lr_peak_epoch:g} is not before training.epochs={epochs}: the rate only rises")
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

    model = models.build(settings.model.arch, classes, settings.model.pretrained, training.use_blurpool)
    model = model.to(place.device, memory_format=torch.channels_last)
    groups = optim.parameter_groups(model, training.weight_decay, training.bn_wd)
    optimizer = optim.build(training.optimizer, groups, training.momentum)
    scaler = precision.scaler()
    start = begin.load_state(settings, place, model, optimizer, scaler)
    network = begin.parallel(model, training.compile, place)
    loss = torch.nn.CrossEntropyLoss(label_smoothing=training.label_smoothing)

    recipe = engine.Recipe(
        model=model,
        network=network,
        optimizer=optimizer,
        objective=lambda images, labels: loss(network(images), labels),
        eval_loss=loss,
        lrs=lambda epoch, count: schedules.iteration_lrs(lambda e: lr_at(e, settings), epoch, count),
        resolution=lambda epoch: schedules.resolution(epoch, **vars(settings.resolution)),
        epochs=training.epochs,
        precision=precision,
        scaler=scaler,
    )
    begin.run(recipe, settings, place, data, validation, start)


def lr_at(epoch: int, settings) -> float:
    """The learning rate at the beginning of an epoch."""
    lr, epochs = settings.lr, settings.training.epochs
    if lr.lr_schedule_type == "step":
        return schedules.step_lr(epoch, lr.lr, lr.step_ratio, lr.step_length, epochs)
    return schedules.cyclic_lr(epoch, lr.lr, lr.lr_peak_epoch, epochs)


if __name__ == "__main__":
    run(main)
