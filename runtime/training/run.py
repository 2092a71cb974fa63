"""A run from its first check to its final weights, whatever it trains."""

import contextlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from beton.errors import UserError
from beton.files import publish
from beton.loading.base import Pipeline
from runtime import verdict
from runtime.launch import Rank
from runtime.outputs import check_file
from runtime.training import checkpoint, engine, resume, sinks, sync_bn
from runtime.training.background import on_host
from runtime.training.checkpoint import Position
from runtime.training.checkpoint_manager import CheckpointManager
from runtime.training.cpu_threads import CpuThreads
from runtime.training.data import Data
from runtime.training.mistakes import Outcome
from runtime.training.models import input_size
from runtime.training.predictions import Collector
from runtime.training.resume import Start
from runtime.training.run_folder import RunFolder
from runtime.training.tracer import Tracer


def parallel(model: torch.nn.Module, training, rank: Rank) -> torch.nn.Module:
    """The model as it is trained: compiled and its batch norm synchronised if section `training` says so, its gradients
    averaged over the ranks."""
    if training.sync_bn and rank.world_size > 1:
        model = sync_bn.synchronised(model, rank.device)
    if training.compile:
        # For each size of images anew: code for any size is slower. All batches of a size have the same length
        model.compile(mode=training.compile_mode, dynamic=False)
    if rank.world_size == 1:
        return model
    devices = [rank.device] if rank.device.type == "cuda" else None
    # The statistics of norm layers are rank 0's, and sent once before each evaluation (engine.evaluate)
    return torch.nn.parallel.DistributedDataParallel(
        model, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True
    )


def run_recipe(recipe: engine.Recipe, settings, rank: Rank, data: Data, validation: Pipeline, start: Start) -> None:
    """Train to the end, or with training.eval_only evaluate; rank 0 reports."""
    if rank.device.type == "cpu" and rank.world_size == 1:
        recipe.threads = CpuThreads(settings.training.threads)
    # Check first: a run that cannot start leaves no folder behind
    sinks.check(settings.logging.sinks)
    if settings.training.trace is not None:
        check_file(Path(settings.training.trace))
    _check_input_sizes(recipe, settings, start)
    if not settings.training.eval_only and start.position.epoch < recipe.epochs:
        training = data.training(recipe.resolution(start.position.epoch))
        check_classes(settings.data.train_dataset, training.classes, settings.data.val_dataset, validation.classes)
        if training.multi_label != validation.multi_label:
            what = "one of data.train_dataset and data.val_dataset has a number for each class as label, the other not"
            raise UserError(what, "give data sets of the same kind")
    if start.classes is not None:
        data_set = settings.data.val_dataset if settings.training.eval_only else settings.data.train_dataset
        check_classes("the weights", start.classes, data_set, validation.classes)
    if settings.training.eval_only:
        if start.classes is None and rank.first:
            print(f"=> the weights name no classes: those of {settings.data.val_dataset} are taken, in their order")
        _evaluate_only(recipe, settings, rank, validation)
        return
    _check_same_start(rank, start)
    folder = _open_folder(settings, rank, start)
    if rank.first:
        parameters = sum(p.numel() for p in recipe.model.parameters()) / 1e6
        print(
            f"=> {settings.model.arch}, {parameters:.1f} M parameters, {len(validation.classes)} classes, "
            f"{rank.world_size} x {rank.device}, {recipe.precision.name}"
        )
        print(f"=> loader {settings.data.loader}: {validation.description}")
    # Last, since building and testing the model has drawn random numbers. Rank 0's go on as they are
    if not rank.first:
        torch.manual_seed(settings.training.seed + rank.rank)  # or all ranks would drop out the same
    checkpoint.set_generators(start.generators)
    _fit(recipe, settings, rank, data, validation, folder, start.position)


def _check_same_start(rank: Rank, start: Start) -> None:
    """Raise UserError where another rank has found another checkpoint, or none: it is on a disk that is not shared."""
    if rank.world_size == 1:
        return
    found = [None] * rank.world_size
    dist.all_gather_object(found, (start.position.epoch, start.position.batch))
    for number, position in enumerate(found):
        if position != found[0]:
            (epoch, batch), (other_epoch, other_batch) = found[0], position
            raise UserError(
                f"rank 0 starts after {epoch} epochs and {batch} batches, rank {number} after {other_epoch} and "
                f"{other_batch}",
                "give a logging.folder that all machines share",
            )


def _evaluate_only(recipe: engine.Recipe, settings, rank: Rank, validation: Pipeline) -> None:
    """Print the metrics; where logging.worst or logging.predictions ask for files, they get a run folder."""
    outcome = Outcome(settings, rank, validation)
    stats = engine.evaluate_all(recipe, validation, rank, bool(settings.validation.lr_tta), outcome.collector)
    if rank.first:
        print("=> " + " ".join(f"{name}={value:.6g}" for name, value in stats.items()))
    if outcome.collector is not None:
        folder = RunFolder(None)
        if rank.first:
            folder = RunFolder.create(settings.logging.folder, settings.logging.name, settings)
            publish(folder.path / "evaluation.json", json.dumps(stats, indent=1) + "\n")
        outcome.write(folder.path)


def _fit(recipe, settings, rank: Rank, data: Data, validation: Pipeline, folder: RunFolder, start: Position) -> None:
    """Train from `start` on: for each epoch a log line and a checkpoint, at the end the weights.

    Raises SystemExit after a signal (runtime/training/checkpoint_manager.py).
    """

    def capture(position: Position, ranks: list[dict]) -> dict:
        parts = (recipe.model, recipe.optimizer, recipe.scaler, recipe.average)
        return checkpoint.capture(position, ranks, settings.flat(), validation.classes, *parts)

    recipe.tracer = _tracer(settings, rank)
    try:
        with (
            recipe.tracer or contextlib.nullcontext(),
            CheckpointManager(rank, capture, folder.path, settings.training.checkpoint_minutes) as manager,
        ):
            ended = time.perf_counter()
            for epoch in range(start.epoch, recipe.epochs):
                position, began = start if epoch == start.epoch else Position(epoch), ended
                outcome = Outcome(settings, rank, validation, epoch == recipe.epochs - 1)
                line = _run_epoch(recipe, settings, rank, data, validation, manager, position, outcome.collector)
                outcome.write(folder.path)
                # With the checkpoint of the epoch before, and with what was trained before an interruption
                ended = time.perf_counter()
                trained = ((position.sums or {}).get("times") or {}).get("train_time", 0.0)
                line |= {"epoch_time": trained + ended - began}
                _keep_best(recipe, line, folder, manager, validation.classes)
                manager.epoch_ended(Position(epoch + 1))
            if rank.first:
                _save_weights(recipe.model, folder.path / "final_weights.pt", validation.classes)
                if recipe.average is not None and recipe.evaluate_average:
                    _save_weights(recipe.average.module, folder.path / "final_ema_weights.pt", validation.classes)
                if where := verdict.of_run(folder.epochs(), settings.data.num_workers):
                    print(f"=> {where}", flush=True)
    finally:
        folder.close()
        data.close()
        validation.close()


def _tracer(settings, rank: Rank) -> Tracer | None:
    """What records the trace, if one is asked for; rank 0 does."""
    if settings.training.trace is None or not rank.first:
        return None
    return Tracer(settings.training.trace, rank.device)


def _run_epoch(
    recipe, settings, rank: Rank, data: Data, validation: Pipeline, manager: CheckpointManager, start: Position,
    collector: Collector | None = None,
) -> dict:  # fmt: skip
    """Train an epoch, or the rest of it, and evaluate; returns the line for the log."""
    epoch = start.epoch
    res = recipe.resolution(epoch)
    training = data.training(res)
    length = [len(training), training.num_samples]
    if start.batch and list(start.sums["of"]) != length:
        raise UserError(
            f"the checkpoint was made in an epoch of {start.sums['of'][0]} batches of {start.sums['of'][1]} photos, "
            f"and {settings.data.train_dataset} has {length[0]} of {length[1]}",
            "resume with the same data set",
        )
    if start.batch and start.sums.get("window") != (training.window and list(training.window)):
        what = (
            f"the checkpoint was made in an epoch that is mixed {_of(start.sums.get('window'))}, and now it is mixed "
        )
        raise UserError(what + _of(training.window), "resume with the same data.cache_gb and number of machines")
    recipe.start_epoch(epoch, start.batch)
    if rank.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(rank.device)
    sums = engine.EpochSums(rank, training, start)
    line = engine.train_epoch(recipe, sums, settings.logging.log_level > 1, manager)
    manager.training_ended(sums.position())
    if settings.logging.log_level > 0 or epoch == recipe.epochs - 1:
        line |= engine.evaluate_all(recipe, validation, rank, bool(settings.validation.lr_tta), collector)
    if rank.device.type == "cuda":  # of this rank; the others' are much the same
        line["gpu_memory_bytes"] = torch.cuda.max_memory_allocated(rank.device)
    return {"epoch": epoch, "res": res, "loader": settings.data.loader, "precision": recipe.precision.name, **line}


def _of(window: Sequence[int] | None) -> str:
    return "as a whole" if window is None else "in {} lanes of {} pages".format(*window)


def _keep_best(recipe, line: dict, folder: RunFolder, manager: CheckpointManager, classes: list[str]) -> None:
    """Log an epoch; save its weights, and apart from them their moving average, where none had a better metric."""
    best = folder.best(line)
    folder.log(line | ({"best": best} if best else {}))
    for name in best:
        prefix, model = ("ema_", recipe.average.module) if name.startswith("ema_") else ("", recipe.model)
        path = folder.path / f"best_{prefix}weights.pt"
        manager.writer.start(_write_weights, _weights(model), path, classes)


def _weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copies on the host, while training goes on."""
    return {name: value.contiguous() for name, value in on_host(dict(model.state_dict())).items()}


def _write_weights(weights: dict, path: Path, classes: list[str]) -> None:
    """Weights that load into the plain model, and the names of the classes beside them."""
    publish(checkpoint.classes_path(path), json.dumps(classes, indent=1) + "\n")
    checkpoint.save(weights, path)


def _save_weights(model: torch.nn.Module, path: Path, classes: list[str]) -> None:
    _write_weights(_weights(model), path, classes)
    print(f"=> Weights in {path}")


def check_classes(one: str, names: list[str], other: str, others: list[str]) -> None:
    """Raise UserError when `one` and `other` have different classes. Numbers, of files without names, match any."""
    numbers = [str(number) for number in range(len(names))]
    if len(names) != len(others):
        what = f"{one} has {len(names)} classes, and {other} has {len(others)}".replace("weights has", "weights have")
    elif names != others and numbers not in (names, others):
        number = next(i for i, pair in enumerate(zip(names, others, strict=True)) if len(set(pair)) > 1)
        what = f"class {number} is '{names[number]}' in {one}, and '{others[number]}' in {other}"
    else:
        return
    raise UserError(what, "give data sets of the same classes")


def _check_input_sizes(recipe: engine.Recipe, settings, start: Start) -> None:
    """Raise UserError when the model cannot take the images that it will get."""
    arch, sizes = settings.model.arch, [settings.validation.resolution]
    if not settings.training.eval_only:
        resolutions = [recipe.resolution(epoch) for epoch in range(start.position.epoch, recipe.epochs)]
        sizes += [min(resolutions), max(resolutions)] if resolutions else []
        if resolutions and settings.training.batch_size == 1:
            input_size.check_single(arch, recipe.model, min(resolutions), recipe.precision.autocast())
    img_size = vars(settings.model).get("img_size")  # only transformers have this parameter
    input_size.check(arch, recipe.model, sizes, recipe.precision.autocast(), img_size)


def _open_folder(settings, rank: Rank, start: Start) -> RunFolder:
    """A new run folder, or the one of the checkpoint; only rank 0 has one."""
    if not rank.first:
        return RunFolder(None)
    if start.folder is None:
        auto = settings.training.resume == resume.AUTO
        folder = RunFolder.create(settings.logging.folder, settings.logging.name, settings, auto)
        folder.sinks = sinks.open_all(settings.logging.sinks, folder.path, settings.flat())
        return folder
    for path in start.refused:
        # Otherwise it would replace the good previous checkpoint when the next one is saved
        os.replace(path, path.with_name(f"{path.stem}.refused.pt"))
    folder = RunFolder.reopen(start.folder, start.position, start.changed)
    folder.sinks = sinks.open_all(settings.logging.sinks, folder.path, settings.flat(), start.position.epoch)
    return folder
