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
from pathlib import Path

import torch
from fastargs import Config

from pipelines.errors import UserError
from runtime import checkpoint, engine, models, optim, schedules, sections
from runtime.config import parse, run
from runtime.data import Data
from runtime.launch import Place
from runtime.launch import run as run_ranks
from runtime.log import RunFolder
from runtime.precision import Precision


def main(argv: list[str]) -> None:
    """Read the settings and start the processes."""
    config = Config()
    sections.add_data(config)
    sections.add_training(config)
    sections.add_running(config)
    settings = parse(config, argv)
    if settings.resolution.min_res > settings.resolution.max_res:
        raise UserError("resolution.min_res is larger than resolution.max_res", "exchange them")
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
    loss_function = torch.nn.CrossEntropyLoss(label_smoothing=training.label_smoothing)
    start_epoch = load_state(settings, model, optimizer, scaler)
    network = parallel(model, settings, place)

    def evaluate() -> dict:
        flip = bool(settings.validation.lr_tta)
        return engine.evaluate(network, validation, loss_function, precision, place, flip)

    if training.eval_only:
        stats = evaluate()
        if place.first:
            print("=> " + " ".join(f"{name}={value:.6g}" for name, value in stats.items()))
        return

    folder = open_folder(settings, place, start_epoch)
    if place.first:
        print(f"=> {settings.model.arch}, {classes} classes, {place.world_size} x {place.device}, {precision.name}")
        print(f"=> loader {settings.data.loader}: {validation.description}")
    for epoch in range(start_epoch, training.epochs):
        res = schedules.resolution(epoch, **vars(settings.resolution))
        loader = data.training(epoch, res)
        lrs = schedules.iteration_lrs(lambda e: lr_at(e, settings), epoch, len(loader))
        line = engine.train_epoch(
            network, loader, optimizer, lrs, loss_function, precision, scaler, place,
            title=f"epoch {epoch} at {res} px", show_loss=settings.logging.log_level > 1,
        )  # fmt: skip
        if settings.logging.log_level > 0 or epoch == training.epochs - 1:
            line |= evaluate()
        folder.log({"epoch": epoch, "res": res, "loader": settings.data.loader, "precision": precision.name, **line})
        if place.first:
            state = checkpoint.capture(epoch + 1, model, optimizer, scaler, settings.flat())
            checkpoint.save(state, folder.path / "checkpoint.pt")
    data.close()
    if place.first:
        weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        checkpoint.save(weights, folder.path / "final_weights.pt")
        print(f"=> Final weights in {folder.path / 'final_weights.pt'}")


def lr_at(epoch: int, settings) -> float:
    """The learning rate at the beginning of an epoch."""
    lr, epochs = settings.lr, settings.training.epochs
    if lr.lr_schedule_type == "step":
        return schedules.step_lr(epoch, lr.lr, lr.step_ratio, lr.step_length, epochs)
    return schedules.cyclic_lr(epoch, lr.lr, lr.lr_peak_epoch, epochs)


def load_state(settings, model, optimizer, scaler) -> int:
    """Load the weights or the checkpoint that the settings name; returns the number of finished epochs."""
    if settings.model.weights:
        path = Path(settings.model.weights)
        checkpoint.load_weights(model, checkpoint.load(path), path)
    if not settings.training.resume:
        return 0
    path = resume_path(settings)
    return checkpoint.restore(checkpoint.load(path), path, model, optimizer, scaler)


def resume_path(settings) -> Path:
    """The checkpoint to go on from; training.resume may name the run's folder too."""
    path = Path(settings.training.resume)
    return path / "checkpoint.pt" if path.is_dir() else path


def open_folder(settings, place: Place, start_epoch: int) -> RunFolder:
    """A new run folder, or the one that the checkpoint lies in; rank 0 alone has one."""
    if not place.first:
        return RunFolder(None)
    if settings.training.resume:
        return RunFolder.reopen(resume_path(settings).parent, start_epoch)
    return RunFolder.create(settings.logging.folder, settings.logging.name, settings)


def parallel(model: torch.nn.Module, settings, place: Place) -> torch.nn.Module:
    """The model as it is trained: compiled if asked for, its gradients averaged over the ranks."""
    if settings.training.compile:
        model.compile()
    if place.world_size == 1:
        return model
    devices = [place.device] if place.device.type == "cuda" else None
    return torch.nn.parallel.DistributedDataParallel(model, device_ids=devices)


if __name__ == "__main__":
    run(main)
