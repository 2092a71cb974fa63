#!/usr/bin/env python
"""Train a ResNet (or any torchvision or timm model) by ffcv-imagenet's recipe.

    python train_imagenet.py --config-file rn_configs/rn18_16_epochs.yaml \
        --data.train_dataset=train.beton --data.val_dataset=val.beton \
        --data.num_workers=8 --data.in_memory=1 --logging.folder=runs

SGD with momentum, a learning rate that rises and falls linearly, images that grow during training,
label smoothing, BlurPool, flip test-time augmentation. Several GPUs: torchrun, or
--training.distributed=1 --dist.world_size=N. All parameters: --help.
"""

from runtime import preflight

preflight.check("timm", "torchvision")

from fastargs import Config, Param, Section

from beton.errors import UserError
from runtime.config import BOOL, FLOAT, STR, between, one_of, parse, run
from runtime.training import sections
from runtime.training.sections import BATCH, EPOCH, EPOCHS, FACTOR, FRACTION, LARGE, NAMES, SIDE


def declare() -> Config:
    """All sections."""
    config = Config()
    sections.add_data(config)
    Section("resolution", "resolution schedule", config_descriptor=config).params(
        min_res=Param(SIDE, "resolution at the start", default=160),
        max_res=Param(SIDE, "resolution at the end", default=160),
        start_ramp=Param(EPOCH, "epoch at which it begins to rise", default=0),
        end_ramp=Param(EPOCH, "epoch at which it has risen", default=0),
    )
    Section("lr", "learning rate schedule", config_descriptor=config).params(
        lr=Param(LARGE, "the highest learning rate", default=0.5),
        lr_schedule_type=Param(one_of("cyclic", "step"), "up and down again, or in steps", default="cyclic"),
        lr_peak_epoch=Param(between(FLOAT, 0, 100_000), "cyclic: epoch of the highest rate", default=2),
        step_ratio=Param(FRACTION, "step: factor of each step", default=0.1),
        step_length=Param(EPOCHS, "step: epochs between steps", default=30),
    )
    Section("training", "training", config_descriptor=config).params(
        batch_size=Param(BATCH, "photos in a batch, on each rank", default=512),
        epochs=Param(EPOCHS, "number of epochs", default=30),
        optimizer=Param(STR, "sgd, or any of timm's", default="sgd"),
        momentum=Param(FRACTION, "momentum", default=0.9),
        weight_decay=Param(FACTOR, "weight decay", default=4e-5),
        use_blurpool=Param(BOOL, "blur before strided convolutions", default=0),
    )
    sections.add_running(config)
    return config


def main(argv: list[str]) -> None:
    """Read the settings and start the processes."""
    settings = parse(declare(), argv)
    sections.check(settings)
    resolution, lr, epochs = settings.resolution, settings.lr, settings.training.epochs
    if resolution.min_res > resolution.max_res:
        raise UserError("resolution.min_res is larger than resolution.max_res", "exchange them")
    if resolution.start_ramp > resolution.end_ramp:
        raise UserError("resolution.start_ramp is later than resolution.end_ramp", "exchange them")
    if lr.lr_schedule_type == "cyclic" and lr.lr_peak_epoch >= epochs:
        print(f"=> lr.lr_peak_epoch={lr.lr_peak_epoch:g} is not before training.epochs={epochs}: the rate only rises")
    from runtime import launch  # here, as it imports torch, for which --help need not wait

    launch.run(train, settings, NAMES)


def train(settings, rank) -> None:
    """The training of one rank (runtime.launch.Rank), from the first epoch or a checkpoint to the final weights."""
    import torch

    from runtime.training import engine, losses, models, optim, resume, schedules
    from runtime.training.data import Data
    from runtime.training.precision import Precision
    from runtime.training.run import parallel, run_recipe

    training = settings.training
    sections.share_batch(settings, rank.world_size)
    torch.manual_seed(training.seed)
    torch.backends.cudnn.benchmark = True
    precision = Precision.choose(training.precision, rank.device)
    data = Data(settings, rank, precision)
    validation = data.validation()
    classes = len(validation.classes)

    model = models.build(settings.model.arch, classes, settings.model.pretrained, training.use_blurpool)
    model = model.to(rank.device, memory_format=torch.channels_last)
    groups = optim.parameter_groups(model, training.weight_decay, training.bn_wd)
    optimizer = optim.build(training.optimizer, groups, training.momentum, fused=rank.device.type == "cuda")
    scaler = precision.scaler()
    start = resume.load_state(settings, rank, model, optimizer, scaler)
    network = parallel(model, training, rank)
    smoothing = training.label_smoothing
    loss = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)
    if validation.multi_label:
        loss = losses.MultiLabelLoss(smoothing)

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
    run_recipe(recipe, settings, rank, data, validation, start)


def lr_at(epoch: int, settings) -> float:
    """The learning rate at the beginning of an epoch."""
    from runtime.training import schedules

    lr, epochs = settings.lr, settings.training.epochs
    if lr.lr_schedule_type == "step":
        return schedules.step_lr(epoch, lr.lr, lr.step_ratio, lr.step_length, epochs)
    return schedules.cyclic_lr(epoch, lr.lr, lr.lr_peak_epoch, epochs)


if __name__ == "__main__":
    run(main, NAMES)
