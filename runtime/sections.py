"""The sections that the training scripts share: ffcv-imagenet's, names and meanings kept, and ours."""

from fastargs import Config, Param, Section

from runtime.config import BOOL, FLOAT, INT, PATH, STR, between, one_of

# Beyond every use, and below what overflows somewhere or would never end
EPOCHS, WORKERS, BATCH = between(INT, 1, 100_000), between(INT, 1, 1024), between(INT, 1, 65_536)
_EPOCH, _VIEWS = between(INT, 0, 100_000), between(INT, 1, 100)
_LARGE, _FACTOR = between(FLOAT, 0, 1_000_000), between(FLOAT, 0, 1000)


def add_data(config: Config) -> None:
    """Where the batches come from, and which model they go to."""
    Section("model", "model details", config_descriptor=config).params(
        arch=Param(STR, "a torchvision model, or timm:NAME", default="resnet18"),
        pretrained=Param(BOOL, "start from the library's weights", default=0),
        weights=Param(PATH, "start from this final_weights.pt or checkpoint.pt"),
    )
    Section("data", "data related", config_descriptor=config).params(
        train_dataset=Param(PATH, "a .beton, or a photo folder for data.loader=torch", required=True),
        val_dataset=Param(PATH, "the same, for validation", required=True),
        num_workers=Param(WORKERS, "threads or processes of the loader, on each rank", required=True),
        in_memory=Param(BOOL, "the dataset fits into memory; else it is read nearly in sequence", required=True),
        gpu=Param(between(INT, 0, 1023), "which GPU, when not distributed", default=0),
        loader=Param(STR, "a file in pipelines/loaders", default="ffcv"),
        on_error=Param(
            one_of("raise", "skip", "substitute"),
            "a damaged sample: stop, leave it out, or take another one for it (for validation: leave it out)",
            default="raise",
        ),
        verify=Param(BOOL, "compare every sample that is read with its checksum", default=0),
        train_stages=Param(STR, "stages for training; {res} is the resolution", default="rrc({res})|flip|normalize"),
        val_stages=Param(
            STR,
            "stages for validation; {res} and {ratio} are the resolution and the crop ratio",
            default="center({res}, ratio={ratio})|normalize",
        ),
    )
    Section("validation", "validation", config_descriptor=config).params(
        batch_size=Param(BATCH, "photos in a batch, on each rank", default=512),
        resolution=Param(between(INT, 8, 4096), "side of the validation image in pixels", default=224),
        crop_ratio=Param(between(FLOAT, 0.1, 1), "side of the crop / short side of the photo", default=224 / 256),
        lr_tta=Param(BOOL, "add the outputs for the image and its mirror image", default=1),
    )


def add_training(config: Config) -> None:
    """The recipe of the ResNet trainer."""
    side = between(INT, 8, 4096)
    Section("resolution", "resolution schedule", config_descriptor=config).params(
        min_res=Param(side, "resolution at the start", default=160),
        max_res=Param(side, "resolution at the end", default=160),
        start_ramp=Param(_EPOCH, "epoch at which it begins to rise", default=0),
        end_ramp=Param(_EPOCH, "epoch at which it has risen", default=0),
    )
    Section("lr", "learning rate schedule", config_descriptor=config).params(
        lr=Param(_LARGE, "the highest learning rate", default=0.5),
        lr_schedule_type=Param(one_of("cyclic", "step"), "up and down again, or in steps", default="cyclic"),
        lr_peak_epoch=Param(between(FLOAT, 0, 100_000), "cyclic: epoch of the highest rate", default=2),
        step_ratio=Param(between(FLOAT, 0, 1), "step: factor of each step", default=0.1),
        step_length=Param(EPOCHS, "step: epochs between steps", default=30),
    )
    Section("training", "training", config_descriptor=config).params(
        batch_size=Param(BATCH, "photos in a batch, on each rank", default=512),
        epochs=Param(EPOCHS, "number of epochs", default=30),
        optimizer=Param(STR, "sgd, or any of timm's", default="sgd"),
        momentum=Param(between(FLOAT, 0, 1), "momentum", default=0.9),
        weight_decay=Param(_FACTOR, "weight decay", default=4e-5),
        use_blurpool=Param(BOOL, "blur before strided convolutions", default=0),
    )


def add_running(config: Config) -> None:
    """What every training has, where it is logged and how its processes meet."""
    Section("training", "training", config_descriptor=config).params(
        repeats=Param(_VIEWS, "repeated augmentation: views of a photo in an epoch", default=1),
        bn_wd=Param(BOOL, "weight decay on norm layers and biases too", default=0),
        label_smoothing=Param(between(FLOAT, 0, 1), "label smoothing", default=0.1),
        precision=Param(
            one_of("auto", "fp16", "bf16", "none"),
            "mixed precision; auto: fp16 on a GPU, bf16 on a CPU that has it, else none",
            default="auto",
        ),
        compile=Param(BOOL, "torch.compile the model", default=0),
        seed=Param(between(INT, 0, 2**31 - 1), "of weights, order and augmentations", default=0),
        distributed=Param(BOOL, "start dist.world_size processes (not needed under torchrun)", default=0),
        eval_only=Param(BOOL, "only evaluate model.weights, model.pretrained or training.resume", default=0),
        resume=Param(PATH, "go on from this checkpoint.pt or its folder; auto: in logging.name, if it has one"),
        checkpoint_minutes=Param(_LARGE, "minutes between checkpoints (null: at epoch ends only)"),
    )
    Section("logging", "logging", config_descriptor=config).params(
        folder=Param(PATH, "a folder is made in here for each run", required=True),
        name=Param(PATH, "name of that folder; default: the time"),
        log_level=Param(
            between(INT, 0, 2),
            "0: evaluate only at the end, 1: after each epoch, 2: show the loss",
            default=1,
        ),
    )
    Section("dist", "distributed training", config_descriptor=config).params(
        world_size=Param(between(INT, 1, 1024), "number of processes", default=1),
        address=Param(STR, "address of rank 0", default="localhost"),
        port=Param(between(INT, 1, 65_535), "port of rank 0", default=12355),
    )


def add_transformer_training(config: Config) -> None:
    """The recipes of the transformer trainer; timm's and DeiT's names for what they name."""
    Section("model", "model details", config_descriptor=config).params(
        img_size=Param(between(INT, 16, 4096), "build the model for images of this side (null: its own)"),
        drop_path=Param(between(FLOAT, 0, 0.99), "stochastic depth rate (null: the model's own)"),
        drop_path_constant=Param(BOOL, "the same rate in every block; else by the model's own rule", default=0),
        layer_scale=Param(_FACTOR, "initial LayerScale (null: the model's own)"),
        distilled=Param(BOOL, "train the distillation head", default=0),
        checkpointing=Param(BOOL, "recompute activations instead of keeping them", default=0),
    )
    Section("data", "data related", config_descriptor=config).params(
        resolution=Param(between(INT, 16, 4096), "side of the training image in pixels", default=224),
    )
    Section("lr", "learning rate schedule", config_descriptor=config).params(
        lr=Param(_LARGE, "the highest learning rate", default=1e-3),
        base_batch=Param(
            between(INT, 1, 1_000_000), "lr.lr is for this global batch and scales with it (null: lr as given)"
        ),
        schedule=Param(one_of("cosine", "constant"), "after the warm-up", default="cosine"),
        warmup_epochs=Param(_EPOCH, "epochs of linear warm-up", default=5),
        warmup_lr=Param(_LARGE, "learning rate at the start", default=1e-6),
        min_lr=Param(_LARGE, "learning rate at the end", default=1e-5),
        cooldown_epochs=Param(_EPOCH, "epochs at lr.min_lr after training.epochs", default=0),
        per_iteration=Param(BOOL, "change in every iteration; else once an epoch", default=0),
        one_epoch_late=Param(BOOL, "as DeiT's loop: the first two epochs have the first rate", default=0),
        layer_decay=Param(between(FLOAT, 0.01, 1), "factor of the rate from layer to layer (null: none)"),
    )
    Section("training", "training", config_descriptor=config).params(
        batch_size=Param(BATCH, "photos in a batch, on each rank", default=256),
        accumulate=Param(BATCH, "batches for each step of the optimizer", default=1),
        epochs=Param(EPOCHS, "number of epochs, without the cooldown", default=300),
        optimizer=Param(STR, "sgd, or any of timm's: adamw, adam, lamb, ...", default="adamw"),
        momentum=Param(between(FLOAT, 0, 1), "momentum, for optimizers that have it", default=0.9),
        eps=Param(_FACTOR, "epsilon of the optimizer (null: its own)"),
        weight_decay=Param(_FACTOR, "weight decay", default=0.05),
        clip=Param(_LARGE, "clip gradients (null: not)"),
        clip_mode=Param(one_of("norm", "value", "agc"), "how", default="norm"),
        loss=Param(one_of("ce", "bce"), "cross entropy, or binary cross entropy for each class", default="ce"),
        bce_target_threshold=Param(between(FLOAT, 0, 1), "bce: targets above this become 1 (null: as they are)"),
        mixup=Param(_FACTOR, "alpha of Mixup (0: none)", default=0),
        cutmix=Param(_FACTOR, "alpha of CutMix (0: none)", default=0),
        mix_probability=Param(between(FLOAT, 0, 1), "share of batches that are mixed", default=1),
        mix_switch=Param(between(FLOAT, 0, 1), "share of CutMix where both are on", default=0.5),
        ema=Param(between(FLOAT, 0, 1), "decay of the moving average of the weights (null: none)"),
        ema_evaluate=Param(BOOL, "evaluate the average too and save it as final_ema_weights.pt", default=1),
    )
    add_teachers(config)


def add_teachers(config: Config) -> None:
    """Distillation and MESA."""
    Section("distillation", "a teacher", config_descriptor=config).params(
        mode=Param(
            one_of("none", "hard", "soft"), "hard: its answer as a label; soft: its distribution", default="none"
        ),
        teacher=Param(STR, "a torchvision model, or timm:NAME", default="timm:regnety_160.deit_in1k"),
        teacher_weights=Param(PATH, "its weights (null: the library's)"),
        alpha=Param(between(FLOAT, 0, 1), "share of the teacher's loss", default=0.5),
        temperature=Param(between(FLOAT, 0.01, 100), "soft: temperature", default=1),
    )
    Section("mesa", "MESA: the moving average as teacher", config_descriptor=config).params(
        weight=Param(_LARGE, "lambda (0: none)", default=0),
        start=Param(between(FLOAT, 0, 1), "begin after this share of the epochs", default=0.25),
        temperature=Param(between(FLOAT, 0.01, 100), "tau", default=3),
        factor=Param(_LARGE, "FasterViT: 50; MESA's authors: tau^2 (null)", default=50),
    )
