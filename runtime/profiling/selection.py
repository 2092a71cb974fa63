"""What profile_loaders.py measures: loaders, protocols, recipes and their data."""

import importlib.util
import os
import tempfile
from pathlib import Path

from fastargs import Config

import pipelines
from beton.errors import UserError
from beton.format.joined import open_beton
from beton.format.parts import absolute
from beton.stages.base import Normalize
from beton.stages.parse import parse as parse_stages
from runtime.config import read_files
from runtime.outputs import make_folder
from runtime.profiling.datasets import resized
from runtime.profiling.measuring import Measurements
from runtime.profiling.process import ROOT, Measuring
from runtime.profiling.rounds import Figures, measure_rounds, measure_train

_LOADED, _TRAINED = ("load", "feed"), ("train", "cached")
_PROTOCOLS = (*_LOADED, *_TRAINED)
_ENCODINGS = ("original", "resized")
_CEILING = "cached"
_SPLITS = {"train": "", "val": "val_"}  # the prefixes of their parameters


def measure_all(profile, out: Path) -> tuple[list[Figures], bool]:
    """Figures of all loaders, protocols and recipes that the section `profile` names, and whether Ctrl-C ended it.

    Runs are kept in `out`.
    """
    check(profile)
    make_folder(out)
    everything = [f for protocol in profile.protocol.split(",") for f in _figures(profile, protocol)]
    if all(f.skipped for f in everything):
        raise UserError(f"nothing to measure ({everything[0].skipped})", "install or name what is missing")
    try:
        for protocol in dict.fromkeys(f.protocol for f in everything):
            figures = [f for f in everything if f.protocol == protocol]
            if protocol in _TRAINED:
                measure_rounds(figures, profile.rounds, lambda f, n: _train(f, profile, n, out), _print)
            else:
                _load(figures, profile)
    except KeyboardInterrupt:
        if not any(f.rounds for f in everything):
            raise
        return everything, True
    if all(f.skipped for f in everything):
        raise UserError(f"nothing was measured ({everything[0].skipped})", "correct that, or name other loaders")
    return everything, False


def check(profile) -> None:
    """Raise UserError for what is invalid in the section `profile`, before anything is measured."""
    protocols = profile.protocol.split(",")
    for what, given, known in (("protocol", protocols, _PROTOCOLS), ("encoding", _encodings(profile), _ENCODINGS)):
        for name in given:
            if name not in known:
                raise UserError(f"unknown {what} '{name}'", f"use {', '.join(known[:-1])} or {known[-1]}")
    parse_stages(profile.stages)
    _sweep(profile)
    if "resized" in _encodings(profile):
        if not profile.dataset:
            raise UserError("resized photos are those of the .beton, which is not given", "give `dataset`")
        if not os.path.isfile(profile.dataset):
            raise UserError(f"resized photos are taken from one .beton, and {profile.dataset} is none", "give one")
        make_folder(_cache(profile))
    if "feed" in protocols:
        _device(profile)
    if set(protocols) & set(_TRAINED):  # now, not only after protocol load has been measured
        read_files(trainer_config(trainer_path(profile.trainer)), profile.config.split(","))


def _encodings(profile) -> list[str]:
    return profile.encodings.split(",")


def _names(profile) -> list[str]:
    names = pipelines.PIPELINES.names() if profile.loaders == "all" else profile.loaders.split(",")
    return list(dict.fromkeys(names))


def _cache(profile) -> Path:
    """Folder for the data sets of other loaders."""
    out = Path(profile.out)
    return Path(os.path.abspath(profile.cache or out.with_name(f"{out.name}_cache")))


def _sweep(profile) -> list[int]:
    """Numbers of workers."""
    if profile.workers_sweep is None:
        return [profile.num_workers]
    found = profile.workers_sweep.split(",")
    if not all(text.isdecimal() and 0 < int(text) <= 1024 for text in found):
        raise UserError(f"the sweep '{profile.workers_sweep}' is not whole numbers with commas", "give e.g. 1,2,4")
    return list(map(int, found))


def _figures(profile, protocol: str) -> list[Figures]:
    """What is measured by a protocol; what cannot be has the reason in `skipped`."""
    names = [_CEILING] if protocol == "cached" else _names(profile)
    reasons = {name: _why_skipped(name, profile, protocol) for name in names}
    if protocol in _TRAINED:
        configs = profile.config.split(",")
        recipes = [Path(config).stem for config in configs] if len(configs) > 1 else [""]
        pairs = list(zip(configs, recipes, strict=True))
        return [Figures(name, protocol, *pair, skipped=reasons[name]) for pair in pairs for name in names]
    # Rows of one protocol are compared with each other, so each number of workers is a protocol of its own
    sweep = _sweep(profile)
    return [
        Figures(
            name, protocol, recipe=f"{workers} workers" if len(sweep) > 1 else "", skipped=reasons[name],
            encoding=encoding, workers=workers,
        )
        for workers in sweep
        for name in names
        for encoding in (["original"] if pipelines.get(name).reads in ("beton", "any") else _encodings(profile))
    ]  # fmt: skip


def _load(figures: list[Figures], profile) -> None:
    """Protocols load and feed: all loaders are opened, compared and warmed up, then measured in rounds."""
    cache, turn = _cache(profile), [f for f in figures if not f.skipped]
    with (
        tempfile.TemporaryDirectory(prefix="profile_") as samples,
        Measurements(len(turn) * (1 + profile.rounds), profile, Path(samples)) as measurements,
    ):
        photos = {"original": profile.photos}
        if any(f.encoding == "resized" for f in turn):
            measurements.say("photos as the .beton has them")
            photos["resized"] = str(resized(Path(profile.dataset), cache))
        measurements.open(turn, lambda f: _task(f, profile, photos), cache, reference_stages(profile.stages))
        measure_rounds(figures, profile.rounds, measurements.measure, measurements.done)


def _task(f: Figures, profile, photos: dict) -> tuple[dict, str | None]:
    """Arguments of Task for a loader, and the photo folder of which its data set has to be made, or None."""
    task = {"stages": {"image": profile.stages}, "batch_size": profile.batch_size, "workers": f.workers}
    task |= {"in_memory": bool(profile.in_memory), "device": _device(profile) if f.protocol == "feed" else "cpu"}
    reads = pipelines.get(f.loader).reads
    if reads in ("beton", "any"):
        return task | {"dataset": absolute(path_for(f.loader, profile))}, None
    folder = absolute(photos[f.encoding])
    return task | {"dataset": folder}, None if reads == "photos" else folder


def _device(profile) -> str:
    import torch

    if profile.device == "cuda" and not torch.cuda.is_available():
        raise UserError(f"CUDA does not start (torch {torch.__version__})", "update the driver, or set `device`='cpu'")
    return profile.device or ("cuda" if torch.cuda.is_available() else "cpu")


def reference_stages(stages: str) -> str:
    """For the comparison before anything is timed: the centre at the size of the pipeline's crop, and normalize."""
    crop, *others = parse_stages(stages)
    normalize = "|normalize" if any(isinstance(stage, Normalize) for stage in others) else ""
    return f"center(({crop.height}, {crop.width})){normalize}"


def _print(f: Figures, text: str) -> None:
    print(f"=> {text}", flush=True)


def trainer_path(name: str) -> Path:
    """The training script of this name, here or elsewhere; raises UserError when there is none."""
    for path in (ROOT / name, Path(name)):
        if os.path.isfile(path) and path.suffix == ".py":
            return path
    raise UserError(f"there is no training script {name}", "give a file like train_imagenet.py")


def trainer_config(path: Path) -> Config:
    """The sections of a training script: what its declare() returns."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "declare"):
        raise UserError(f"{path} has no function declare()", "give a file like train_imagenet.py")
    return module.declare()


def _train(figures: Figures, profile, number: int, out: Path) -> dict:
    """One training run; the number of the round is its seed."""
    name = figures.loader
    given = {f"data.{split}_dataset": _dataset(name, profile, prefix) for split, prefix in _SPLITS.items()}
    given |= {"data.num_workers": profile.num_workers, "data.in_memory": profile.in_memory, "training.seed": number}
    given |= {"training.epochs": profile.epochs} if profile.epochs else {}
    return measure_train(trainer_path(profile.trainer), name, figures.config, given, out, bool(profile.keep))


def _dataset(name: str, profile, prefix: str) -> str:
    """What a loader trains with: what is given, or its own data set of the photos."""
    path = path_for(name, profile, prefix)
    if pipelines.get(name).reads in ("photos", "beton", "any"):
        return path
    with Measuring(name) as process:
        return process.ask("make", photos=absolute(path), folder=str(_cache(profile)))["dataset"]


def _why_skipped(name: str, profile, protocol: str) -> str | None:
    """Why a loader cannot be measured, or None; raises UserError for an unknown one or an invalid path."""
    if packages := pipelines.missing(name):
        return f"{', '.join(packages)} not installed (pip install {' '.join(packages)}; all peers: ./setup.sh peers)"
    pipeline = pipelines.get(name)
    if pipeline.is_ceiling and protocol == "load":
        return "it loads nothing; it is the ceiling of protocol train"
    for prefix in _SPLITS.values() if protocol in _TRAINED else [""]:
        if path_for(name, profile, prefix) is None:
            return f"profile.{prefix}{'dataset' if pipeline.reads == 'beton' else 'photos'} is not given"
    return None


def path_for(name: str, profile, prefix: str = "") -> str | None:
    """What a loader's data is given as: the photo folder or the .beton (`prefix` val_: those for validation).

    Raises UserError when it is invalid.
    """
    kinds = {"beton": ["dataset"], "any": ["dataset", "photos"]}.get(pipelines.get(name).reads, ["photos"])
    given = [(kind, path) for kind in kinds if (path := getattr(profile, prefix + kind))]
    kind, path = given[0] if given else (None, None)
    if kind == "dataset":
        open_beton(path).close()
    elif kind == "photos" and not os.path.isdir(path):
        raise UserError(f"there is no folder {path}", "check the path")
    return path
