#!/usr/bin/env python
"""Train a vision transformer as its authors did: ViT, DeiT, DeiT III, LeViT, CaiT, ResMLP, FasterViT, ...

    python train_transformers.py --config-file vit_configs/deit3/s_1k_224.yaml \
        --data.train_dataset=train.beton --data.val_dataset=val.beton \
        --data.num_workers=8 --data.in_memory=1 --logging.folder=runs

Cosine schedule with warm-up, AdamW or LAMB, Mixup and CutMix, repeated augmentation, a moving average of
the weights, distillation, MESA; the recipe selects among them. Several GPUs: torchrun, or
--training.distributed=1 --dist.world_size=N. All parameters: --help.
"""

from runtime import preflight

preflight.check("timm", "torchvision")

from fastargs import Config, Param, Section

from beton.errors import UserError
from runtime.config import BOOL, FLOAT, INT, PATH, STR, between, one_of, parse, run
from runtime.training import sections
from runtime.training.sections import BATCH, EPOCH, EPOCHS, FACTOR, FRACTION, LARGE, MODEL_OPTIONS, NAMES


def declare() -> Config:
    """All sections; timm's and DeiT's names for their parameters."""
    config = Config()
    sections.add_data(config)
    Section("model", "model details", config_descriptor=config).params(**MODEL_OPTIONS)
    Section("data", "data related", config_descriptor=config).params(
        resolution=Param(between(INT, 16, 4096), "side of the training image in pixels", default=224),
    )
    Section("lr", "learning rate schedule", config_descriptor=config).params(
        lr=Param(LARGE, "the highest learning rate", default=1e-3),
        base_batch=Param(
            between(INT, 1, 1_000_000), "lr.lr is for this global batch and scales with it (null: lr as given)"
        ),
        schedule=Param(one_of("cosine", "constant"), "after the warm-up", default="cosine"),
        warmup_epochs=Param(EPOCH, "epochs of linear warm-up", default=5),
        warmup_lr=Param(LARGE, "learning rate at the start", default=1e-6),
        min_lr=Param(LARGE, "learning rate at the end", default=1e-5),
        cooldown_epochs=Param(EPOCH, "epochs at lr.min_lr after training.epochs", default=0),
        per_iteration=Param(BOOL, "change in every iteration; else once an epoch", default=0),
        one_epoch_late=Param(BOOL, "as DeiT's loop: the first two epochs have the first rate", default=0),
        layer_decay=Param(between(FLOAT, 0.01, 1), "factor of the rate from layer to layer (null: none)"),
    )
    Section("training", "training", config_descriptor=config).params(
        batch_size=Param(BATCH, "photos in a batch, on each rank", default=256),
        accumulate=Param(BATCH, "batches for each step of the optimizer", default=1),
        epochs=Param(EPOCHS, "number of epochs, without the cooldown", default=300),
        optimizer=Param(STR, "sgd, or any of timm's: adamw, adam, lamb, ...", default="adamw"),
        momentum=Param(FRACTION, "momentum, for optimizers that have it", default=0.9),
        eps=Param(FACTOR, "epsilon of the optimizer (null: its own)"),
        weight_decay=Param(FACTOR, "weight decay", default=0.05),
        clip=Param(LARGE, "clip gradients (null: not)"),
        clip_mode=Param(one_of("norm", "value", "agc"), "how", default="norm"),
        loss=Param(one_of("ce", "bce"), "cross entropy, or binary cross entropy for each class", default="ce"),
        bce_target_threshold=Param(FRACTION, "bce: targets above this become 1 (null: as they are)"),
        mixup=Param(FACTOR, "alpha of Mixup (0: none)", default=0),
        cutmix=Param(FACTOR, "alpha of CutMix (0: none)", default=0),
        mix_probability=Param(FRACTION, "share of batches that are mixed", default=1),
        mix_switch=Param(FRACTION, "share of CutMix where both are on", default=0.5),
        ema=Param(FRACTION, "decay of the moving average of the weights (null: none)"),
        ema_evaluate=Param(BOOL, "evaluate the average too and save it as final_ema_weights.pt", default=1),
    )
    add_teachers(config)
    sections.add_running(config)
    return config


def add_teachers(config: Config) -> None:
    """Distillation and MESA."""
    Section("distillation", "a teacher", config_descriptor=config).params(
        mode=Param(one_of("none", "hard", "soft"), "hard: its prediction as label; soft: its distribution", "none"),
        teacher=Param(STR, "a torchvision model, or timm:NAME", default="timm:regnety_160.deit_in1k"),
        teacher_weights=Param(PATH, "its weights (null: the library's)"),
        alpha=Param(FRACTION, "share of the teacher's loss", default=0.5),
        temperature=Param(between(FLOAT, 0.01, 100), "soft: temperature", default=1),
    )
    Section("mesa", "MESA: the moving average as teacher", config_descriptor=config).params(
        weight=Param(LARGE, "lambda (0: none)", default=0),
        start=Param(FRACTION, "begin after this share of the epochs", default=0.25),
        temperature=Param(between(FLOAT, 0.01, 100), "tau", default=3),
        factor=Param(LARGE, "FasterViT: 50; MESA's authors: tau^2 (null)", default=50),
    )


def main(argv: list[str]) -> None:
    """Read the settings and start the processes."""
    settings = parse(declare(), argv)
    sections.check(settings)
    training = settings.training
    if settings.mesa.weight > 0 and training.ema is None:
        raise UserError("MESA needs a moving average of the weights", "set training.ema")
    if settings.lr.warmup_epochs >= training.epochs:
        what = f"lr.warmup_epochs={settings.lr.warmup_epochs} does not end before training.epochs={training.epochs}"
        print(f"=> {what}: the rate only rises")
    from runtime import launch  # here, as it imports torch, for which --help need not wait

    launch.run(train, settings, NAMES)


def train(settings, rank) -> None:
    """The training of one rank (runtime.launch.Rank), from the first epoch or a checkpoint to the final weights."""
    import torch
    from timm.utils import ModelEmaV3

    from runtime.training import engine, losses, models, optim, resume
    from runtime.training.data import Data
    from runtime.training.precision import Precision
    from runtime.training.run import parallel, run_recipe

    training = settings.training
    sections.share_batch(settings, rank.world_size)
    if (training.mixup > 0 or training.cutmix > 0) and training.batch_size % 2:
        raise UserError(f"Mixup pairs photos, and training.batch_size={training.batch_size} is odd", "make it even")
    torch.manual_seed(training.seed)
    torch.backends.cudnn.benchmark = True
    precision = Precision.choose(training.precision, rank.device)
    data = Data(settings, rank, precision)
    validation = data.validation()
    classes = len(validation.classes)

    model = models.build(settings.model.arch, classes, settings.model.pretrained, **models.options(settings.model))
    model = model.to(rank.device, memory_format=torch.channels_last)
    # Before the first step: some models cannot be copied after it
    average = ModelEmaV3(model, decay=training.ema) if training.ema is not None else None
    groups = optim.parameter_groups(model, training.weight_decay, training.bn_wd, settings.lr.layer_decay)
    optimizer = optim.build(
        training.optimizer, groups, training.momentum, training.eps, fused=rank.device.type == "cuda"
    )
    scaler = precision.scaler()
    start = resume.load_state(settings, rank, model, optimizer, scaler, average)
    network = parallel(model, training, rank)
    average_model = average.module if average is not None else None
    teacher = losses.open_teacher(settings, classes, rank.device)
    several = validation.multi_label
    objective = losses.Objective(settings, classes, network, average_model, teacher, several)

    recipe = engine.Recipe(
        model=model,
        network=network,
        optimizer=optimizer,
        objective=objective,
        eval_loss=losses.MultiLabelLoss() if several else torch.nn.CrossEntropyLoss(),
        lrs=lambda epoch, count: learning_rates(settings, rank, epoch, count),
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
    run_recipe(recipe, settings, rank, data, validation, start)


def learning_rates(settings, rank, epoch: int, batches: int):
    """The learning rate of each batch of an epoch; batches of one step have the same."""
    from runtime.training import schedules

    training = settings.training
    peak = settings.lr.lr
    if settings.lr.base_batch is not None:
        peak *= training.batch_size * rank.world_size * training.accumulate / settings.lr.base_batch
    steps = -(-batches // training.accumulate)
    lrs = schedules.warmup_and_cosine(settings.lr, peak, training.epochs, steps)(epoch)
    return lrs.repeat(training.accumulate)[:batches]


if __name__ == "__main__":
    run(main, NAMES)
