"""The sections that all trainers share: those of ffcv-imagenet, with their names and meanings, and ours."""

from fastargs import Config, Param, Section

from beton.errors import UserError
from runtime.config import BOOL, FLOAT, INT, PATH, PATHS, STR, between, one_of

# Ranges beyond every use that still exclude what would overflow or never end
EPOCHS, WORKERS, BATCH = between(INT, 1, 100_000), between(INT, 1, 1024), between(INT, 1, 65_536)
EPOCH, SIDE = between(INT, 0, 100_000), between(INT, 8, 4096)
_COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
LARGE, FACTOR, FRACTION = between(FLOAT, 0, 1_000_000), between(FLOAT, 0, 1000), between(FLOAT, 0, 1)

# What trainers call the arguments that messages of the library name (runtime.config.run)
NAMES = {
    "pipeline": "data.loader",
    "workers": "data.num_workers",
    "in_memory": "data.in_memory",
    "cache_gb": "data.cache_gb",
    "on_error": "data.on_error",
    "verify": "data.verify",
    "batch_size": "training.batch_size",
    "repeats": "training.repeats",
    "seed": "training.seed",
    "cache": "data.cache",
    "world_size": "dist.world_size",
}

# Options of section `model` that change how a model is built, for trainers that offer them; the defaults change
# nothing. runtime/training/models/ applies them.
MODEL_OPTIONS = {
    "img_size": Param(between(INT, 16, 4096), "build the model for images of this side (null: its own)"),
    "drop_path": Param(between(FLOAT, 0, 0.99), "stochastic depth rate (null: the model's own)"),
    "drop_path_constant": Param(BOOL, "the same rate in every block; else by the model's own rule", default=0),
    "layer_scale": Param(FACTOR, "initial LayerScale (null: the model's own); pretrained weights keep theirs"),
    "distilled": Param(BOOL, "train the distillation head", default=0),
    "checkpointing": Param(BOOL, "recompute activations instead of keeping them", default=0),
}


def add_data(config: Config) -> None:
    """Sections `model`, `data` and `validation`."""
    Section("model", "model details", config_descriptor=config).params(
        arch=Param(STR, "a torchvision model, or timm:NAME", default="resnet18"),
        pretrained=Param(BOOL, "start from the library's weights", default=0),
        weights=Param(PATH, "start from this final_weights.pt or checkpoint.pt"),
    )
    Section("data", "data related", config_descriptor=config).params(
        train_dataset=Param(
            PATHS,
            "a .beton or several ('train-*.beton', or with commas), or a photo folder for data.loader=torch; "
            "or URLs (s3://..., gs://..., hf://..., https://...)",
        ),
        val_dataset=Param(PATHS, "the same, for validation", required=True),
        cache=Param(PATH, "the folder that files of URLs are fetched into, once for all ranks of a machine"),
        num_workers=Param(WORKERS, "threads or processes of the loader, on each rank", required=True),
        in_memory=Param(BOOL, "the dataset fits into memory; else it is read nearly in sequence", required=True),
        gpu=Param(between(INT, 0, 1023), "which GPU, when not distributed", default=0),
        loader=Param(STR, "a file in pipelines/: beton (ours), ffcv (stock FFCV 1.0.2), torch, ...", default="beton"),
        cache_gb=Param(
            between(FLOAT, 0.001, 1_000_000),
            "in_memory=0: GB of memory on each machine for the data set (null: two pages for each photo of a batch)",
        ),
        on_error=Param(
            one_of("raise", "skip", "substitute"),
            "a damaged sample: stop, leave it out, or replace it",
            default="raise",
        ),
        verify=Param(BOOL, "compare every sample that is read with its checksum", default=0),
        timed=Param(BOOL, "log what the threads of data.loader=beton spend on reading, decoding, ...", default=0),
        plugins=Param(PATHS, "Python files with stages of your own (@beton.stage), with commas"),
        train_stages=Param(STR, "stages for training; {res} is the resolution", default="rrc({res})|flip|normalize"),
        val_stages=Param(
            STR, "stages for validation; {ratio} is the crop ratio", default="center({res}, ratio={ratio})|normalize"
        ),
    )
    Section("validation", "validation", config_descriptor=config).params(
        batch_size=Param(BATCH, "photos in a batch, on each rank", default=512),
        resolution=Param(SIDE, "side of the validation image in pixels", default=224),
        crop_ratio=Param(between(FLOAT, 0.1, 1), "side of the crop / short side of the photo", default=224 / 256),
        lr_tta=Param(BOOL, "add the outputs for the image and its mirror image", default=1),
    )


def add_running(config: Config) -> None:
    """Parameters of section `training` that every trainer has; sections `logging` and `dist`."""
    Section("training", "training", config_descriptor=config).params(
        global_batch_size=Param(
            between(INT, 1, 1_000_000),
            "photos in a batch over all ranks: training.batch_size is its share (null: batch_size on each rank)",
        ),
        repeats=Param(between(INT, 1, 100), "repeated augmentation: views of a photo in an epoch", default=1),
        bn_wd=Param(BOOL, "weight decay on norm layers and biases too", default=0),
        label_smoothing=Param(FRACTION, "label smoothing", default=0.1),
        precision=Param(
            one_of("auto", "fp16", "bf16", "none"), "auto: fp16 on a GPU, bf16 on a CPU that has it, else none", "auto"
        ),
        device=Param(one_of("auto", "cuda", "cpu"), "auto: a GPU if there is one, else the CPU", default="auto"),
        tf32=Param(BOOL, "on a GPU, float32 products of 10 bits, which are faster", default=1),
        threads=Param(between(INT, 1, 1024), "torch's threads on a CPU (null: the cores that others leave free)"),
        compile=Param(BOOL, "torch.compile the model, for each size of images", default=0),
        compile_mode=Param(one_of(*_COMPILE_MODES), "torch.compile's mode", default="default"),
        seed=Param(between(INT, 0, 2**31 - 1), "of weights, order and augmentations", default=0),
        distributed=Param(BOOL, "start dist.world_size processes (not needed under torchrun)", default=0),
        sync_bn=Param(BOOL, "batch norm's statistics over the batches of all ranks", default=0),
        eval_only=Param(BOOL, "only evaluate model.weights, model.pretrained or training.resume", default=0),
        resume=Param(PATH, "resume this checkpoint.pt or run folder; auto: the folder logging.name, if it has one"),
        trace=Param(PATH, "write a Chrome trace of ten steps (torch.profiler) into this file"),
        checkpoint_minutes=Param(LARGE, "minutes between checkpoints (null: at epoch ends only)"),
    )
    Section("logging", "logging", config_descriptor=config).params(
        folder=Param(PATH, "each run makes its folder in here (training.eval_only: only for worst and predictions)"),
        name=Param(PATH, "name of the run's folder; default: the time"),
        worst=Param(
            between(INT, 0, 1000), "at the end: sheet of so many photos, accuracy by class, confusion", default=0
        ),
        predictions=Param(BOOL, "at the end: predictions.npz, the outputs for every validation photo", default=0),
        log_level=Param(between(INT, 0, 2), "evaluate 0: at the end, 1: each epoch; 2: and show the loss", default=1),
        sinks=Param(STR, "who gets the log too, with commas: tensorboard, wandb", default=""),
    )
    Section("dist", "distributed training", config_descriptor=config).params(
        world_size=Param(between(INT, 1, 1024), "number of processes", default=1),
        address=Param(STR, "address of rank 0", default="localhost"),
        port=Param(between(INT, 1, 65_535), "port of rank 0", default=12355),
        timeout=Param(
            between(INT, 1, 86_400), "seconds without an answer of another rank until the run ends", default=600
        ),
    )
    Section("launch", "as a job of Slurm, by submitit", config_descriptor=config).params(
        slurm=Param(BOOL, "submit the training, which is requeued and goes on after a preemption", default=0),
        local=Param(BOOL, "the same as a job on this machine, without Slurm: wait for its end", default=0),
        nodes=Param(between(INT, 1, 4096), "number of machines", default=1),
        gpus=Param(between(INT, 0, 64), "GPUs on each of them, with a rank each", default=0),
        tasks=Param(between(INT, 1, 1024), "ranks on each machine (null: one for each GPU, or one)"),
        cpus=Param(between(INT, 1, 1024), "cores for each rank (null: data.num_workers)"),
        memory=Param(LARGE, "GB on each machine (null: as the cluster is set up)"),
        minutes=Param(between(INT, 1, 100_000), "time limit; at its end the job is requeued", default=1440),
        requeues=Param(between(INT, 0, 1000), "how often it is requeued at its time limit", default=10),
        signal_seconds=Param(between(INT, 1, 3600), "how long before the limit the signal comes", default=120),
        partition=Param(STR, "partition (null: the cluster's default)"),
        account=Param(STR, "account (null: your default)"),
        sbatch=Param(STR, "more options of sbatch, such as '--qos=low --exclude=n1,n2 --exclusive'", default=""),
        setup=Param(STR, "a command before the ranks start, such as 'module load cuda'"),
    )


def share_batch(settings, world_size: int) -> None:
    """Make training.batch_size the share of one of `world_size` ranks in training.global_batch_size, where that is
    given. Raises UserError where it has no whole share."""
    of_all = settings.training.global_batch_size
    if of_all is None:
        return
    if of_all % world_size:
        what = f"training.global_batch_size={of_all} cannot be shared by {world_size} ranks"
        raise UserError(what, f"give a multiple of {world_size}, or another number of ranks")
    settings.change("training.batch_size", of_all // world_size, "training.global_batch_size")


def check(settings) -> None:
    """Raise UserError where a parameter is missing that what is asked for needs."""
    wanted, data = settings.logging.worst or settings.logging.predictions, settings.data
    if wanted and data.loader != "beton" and data.on_error != "raise":
        what = f"data.loader={data.loader} does not say which photos data.on_error={data.on_error} has left out"
        raise UserError(what, "set data.loader=beton or data.on_error=raise, or logging.worst=0 and no predictions")
    if settings.training.eval_only:
        if wanted and not settings.logging.folder:
            raise UserError("logging.worst and logging.predictions need a folder", "give logging.folder")
        if settings.training.resume == "auto" and not settings.logging.folder:
            raise UserError("training.resume=auto needs the folder of the runs", "give logging.folder")
        return
    needed = {"data.train_dataset": settings.data.train_dataset, "logging.folder": settings.logging.folder}
    missing = ", ".join(name for name, value in needed.items() if value is None)
    if missing:
        raise UserError(f"missing {missing}", "give --section.name=value or set it in a --config-file")
