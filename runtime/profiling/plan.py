"""What profile_loaders.py measures: loaders, protocols, recipes and their data."""

import importlib.util
import os
from pathlib import Path

from fastargs import Config

import pipelines
from beton.errors import UserError
from beton.format.file import BetonFile
from beton.stages.parse import parse as parse_stages
from runtime.config import read_files
from runtime.outputs import make_folder
from runtime.profiling.rounds import ROOT, Figures, measure_load, measure_rounds, measure_train

_PROTOCOLS = ("load", "train")


def measure_all(profile, out: Path) -> list[Figures]:
    """Figures of all loaders, protocols and recipes that the section `profile` names; runs are kept in `out`."""
    names = list(dict.fromkeys(profile.loaders.split(",")))
    protocols = profile.protocol.split(",")
    for protocol in protocols:
        if protocol not in _PROTOCOLS:
            raise UserError(f"unknown protocol '{protocol}'", f"use {' or '.join(_PROTOCOLS)}")
    parse_stages(profile.stages)
    if "train" in protocols:  # now, not only after protocol load has been measured
        read_files(trainer_config(trainer_path(profile.trainer)), profile.config.split(","))
    make_folder(out)
    everything = []
    for protocol in protocols:
        reasons = {name: _why_skipped(name, profile, protocol) for name in names}
        configs = profile.config.split(",") if protocol == "train" else [None]
        recipes = [Path(config).stem for config in configs] if len(configs) > 1 else [""]
        figures = [
            Figures(name, protocol, config, recipe, skipped=reasons[name])
            for config, recipe in zip(configs, recipes, strict=True)
            for name in names
        ]
        measure_rounds(figures, profile.rounds, lambda f, number: _measure(f, profile, number, out))
        everything += figures
    if all(f.skipped for f in everything):
        raise UserError(f"nothing to measure ({everything[0].skipped})", "install or name what is missing")
    return everything


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


def _measure(figures: Figures, profile, number: int, out: Path) -> dict:
    """One measurement; the number of the round is its seed."""
    name, dataset = figures.loader, _path_for(figures.loader, profile)
    if figures.protocol == "load":
        task = {"dataset": dataset, "stages": {"image": profile.stages}, "batch_size": profile.batch_size}
        task |= {"workers": profile.num_workers, "seed": number, "in_memory": bool(profile.in_memory)}
        return measure_load(name, task, profile.seconds)
    given = {"data.train_dataset": dataset, "data.val_dataset": _path_for(name, profile, "val_")}
    given |= {"data.num_workers": profile.num_workers, "data.in_memory": profile.in_memory, "training.seed": number}
    given |= {"training.epochs": profile.epochs} if profile.epochs else {}
    return measure_train(trainer_path(profile.trainer), name, figures.config, given, out, bool(profile.keep))


def _why_skipped(name: str, profile, protocol: str) -> str | None:
    """Why a loader cannot be measured, or None; raises UserError for an unknown one or an invalid path."""
    if packages := pipelines.missing(name):
        return f"{', '.join(packages)} not installed (pip install {' '.join(packages)})"
    if pipelines.get(name).is_ceiling and protocol == "load":
        return "it loads nothing; it is the ceiling of protocol train"
    for prefix in ["", "val_"] if protocol == "train" else [""]:
        if _path_for(name, profile, prefix) is None:
            return f"profile.{prefix}{'photos' if pipelines.get(name).reads == 'photos' else 'dataset'} is not given"
    return None


def _path_for(name: str, profile, prefix: str = "") -> str | None:
    """The data that a loader reads: the photo folder or the .beton (`prefix` val_: those for validation).

    Raises UserError when it is invalid.
    """
    kinds = {"photos": ["photos"], "beton": ["dataset"], "any": ["dataset", "photos"]}[pipelines.get(name).reads]
    given = [(kind, path) for kind in kinds if (path := getattr(profile, prefix + kind))]
    kind, path = given[0] if given else (None, None)
    if kind == "dataset":
        BetonFile(path).close()
    elif kind == "photos" and not os.path.isdir(path):
        raise UserError(f"there is no folder {path}", "check the path")
    return path
