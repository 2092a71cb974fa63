#!/usr/bin/env python
"""Loaders side by side on the same photos and stages -> report.

    python profile_loaders.py --profile.photos=FOLDER/train --profile.dataset=train.beton \
        --profile.stages='rrc(224)|flip|normalize' --profile.loaders=ffcv,torch,cached --profile.out=DIR

Protocol `load`: batches on the host, nothing else. Protocol `train`: the real trainer (profile.trainer,
profile.config, and the validation data); several recipes make one report. Every measurement is a fresh
process; rounds interleave the loaders. With profile.runs the report is made of finished run folders.
"""

import runtime.start  # noqa: F401  checks the set-up; must come before torch

# isort: split
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from fastargs import Config, Param, Section

from pipelines import beton, loaders, stages
from pipelines.errors import UserError
from runtime import env, report, sections
from runtime.config import BOOL, FLOAT, INT, PATH, PATHS, STR, between, one_of, parse, read_files, run
from runtime.sections import BATCH, EPOCHS, WORKERS

_HERE = Path(__file__).resolve().parent
_PROTOCOLS = ("load", "train")
_LEAVES_OUT = [
    "The page cache is warm: a first epoch is read before the clock starts. Cold disks and networks are not measured.",
    "The standard loader resizes with Pillow's antialiased bilinear filter, ffcv and ffcv_stock by area.",
    "A .beton holds photos that were shrunk and encoded once more; the photo folder holds the originals.",
    "`cached` repeats one batch: the ceiling, not a loader to train with.",
]


def declare() -> Config:
    """The section `profile`."""
    config = Config()
    Section("profile", "what to measure", config_descriptor=config).params(
        protocol=Param(STR, "load, train, or both with a comma", default="load"),
        loaders=Param(STR, "files in pipelines/loaders, with commas", default="ffcv,torch,cached"),
        photos=Param(PATH, "photo folder (one folder for each class), for loaders that read photos"),
        dataset=Param(PATH, "the same photos as a .beton"),
        val_photos=Param(PATH, "train: photo folder for validation"),
        val_dataset=Param(PATH, "train: .beton for validation"),
        stages=Param(STR, "load: the pipeline", default="rrc(224)|flip|normalize"),
        batch_size=Param(BATCH, "load: photos in a batch", default=128),
        num_workers=Param(WORKERS, "threads or processes of a loader", default=2),
        in_memory=Param(BOOL, "the dataset fits into memory", default=1),
        rounds=Param(between(INT, 1, 1000), "measurements of each loader", default=5),
        seconds=Param(between(FLOAT, 0, 3600), "load: time at least so long (whole epochs)", default=3),
        trainer=Param(
            one_of("train_imagenet.py", "train_transformers.py"), "train: script", default="train_imagenet.py"
        ),
        config=Param(PATHS, "train: recipes for the script, with commas", default="rn_configs/clothing_16_epochs.yaml"),
        epochs=Param(EPOCHS, "train: instead of the recipe's number"),
        runs=Param(PATHS, "make the report of these finished run folders, with commas"),
        title=Param(STR, "title of the report", default="Image loaders side by side"),
        out=Param(PATH, "folder for the report", required=True),
    )
    return config


def trainer_config(trainer: str) -> Config:
    """The sections that a trainer has; to import the trainer itself takes seconds."""
    config = Config()
    sections.add_data(config)
    (sections.add_training if trainer == "train_imagenet.py" else sections.add_transformer_training)(config)
    sections.add_running(config)
    return config


@dataclass
class Figures:
    """What the rounds of one loader and protocol (train: of one recipe) gave."""

    loader: str
    protocol: str
    config: str | None = None
    recipe: str = ""  # its name, where there are several
    rounds: list[dict] = field(default_factory=list)
    skipped: str | None = None

    def label(self) -> str:
        """Name of its runs."""
        return f"{self.loader}, {self.recipe}" if self.recipe else self.loader

    def row(self) -> dict:
        """The report's row: medians over the rounds, with their spread."""
        # Rows of one protocol are compared: so each recipe is one of its own
        about = {"loader": self.loader, "protocol": f"{self.protocol} {self.recipe}".strip()}
        if self.skipped:
            return {**about, "skipped": self.skipped}
        if self.protocol == "train":
            row = report.row_from_runs(self.loader, [report.load_run(r["folder"]) for r in self.rounds]) | about
        else:
            row = {**about, "wait_share": None, "top_1": None}
            row["images_per_second"] = spread([r["images_per_second"] for r in self.rounds])
            row["seconds_per_epoch"] = spread([r["images"] / r["images_per_second"] for r in self.rounds])
            row["first_batch_seconds"] = statistics.median(r["first_batch_seconds"] for r in self.rounds)
        row["cpu_seconds_per_image"] = statistics.median(r["cpu_seconds_per_image"] for r in self.rounds)
        row["peak_memory_bytes"] = max(r["peak_memory_bytes"] for r in self.rounds)
        return row


def spread(values: list[float]) -> dict:
    """Median, least, greatest and number of the values."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def main(argv: list[str]) -> None:
    """Measure, or collect finished runs, and write the report."""
    settings = parse(declare(), argv)
    profile = settings.profile
    out = Path(profile.out)
    if profile.runs:
        rows, runs = collect(profile.runs.split(","))
    else:
        figures = measure_all(profile, out)
        rows = [f.row() for f in figures]
        trained = [f for f in figures if f.protocol == "train" and f.rounds]
        runs = {f.label(): [report.load_run(r["folder"]) for r in f.rounds] for f in trained}
    told = {k: v for k, v in settings.flat().items() if v is not None} | {"leaves_out": _LEAVES_OUT}
    facts = {**env.machine(), "versions": env.versions()}
    path = report.write_report(
        out, machine=facts, stages=profile.stages, settings=told, rows=rows, runs=runs, title=profile.title
    )
    print(report.terminal_table(rows))
    for row in rows:
        if "skipped" in row:
            print(f"skipped {row['loader']} ({row['protocol']}): {row['skipped']}")
    print(f"=> Report in {path}")


def collect(folders: list[str]) -> tuple[list[dict], dict]:
    """Rows and runs, by loader, of finished run folders."""
    runs: dict[str, list[dict]] = {}
    for folder in folders:
        loaded = report.load_run(Path(folder))
        runs.setdefault(loaded["loader"], []).append(loaded)
    return [report.row_from_runs(label, of_label) for label, of_label in runs.items()], runs


def measure_all(profile, out: Path) -> list[Figures]:
    """All rounds of all loaders and protocols; in every round the loaders take turns in another order."""
    names = list(dict.fromkeys(profile.loaders.split(",")))
    protocols = profile.protocol.split(",")
    for protocol in protocols:
        if protocol not in _PROTOCOLS:
            raise UserError(f"unknown protocol '{protocol}'", f"use {' or '.join(_PROTOCOLS)}")
    stages.parse(profile.stages)
    if "train" in protocols:
        # Not only after the loaders before it are measured
        read_files(trainer_config(profile.trainer), profile.config.split(","))
    report.make_folder(out)
    everything = []
    for protocol in protocols:
        configs = profile.config.split(",") if protocol == "train" else [None]
        reasons = {name: why_not(name, profile, protocol) for name in names}
        recipes = [Path(config).stem for config in configs] if len(configs) > 1 else [""]
        figures = [
            Figures(name, protocol, config, recipe, skipped=reasons[name])
            for config, recipe in zip(configs, recipes, strict=True)
            for name in names
        ]
        for round_number in range(profile.rounds):
            turn = [f for f in figures if not f.skipped]
            random.Random(round_number).shuffle(turn)
            for f in turn:
                if protocol == "load":
                    f.rounds.append(measure_load(f.loader, profile, round_number, out))
                else:
                    f.rounds.append(measure_train(f.loader, f.config, profile, round_number, out))
                print(f"=> {protocol}, round {round_number + 1} of {profile.rounds}: {f.loader}", flush=True)
        everything += figures
    if all(f.skipped for f in everything):
        raise UserError(f"nothing to measure ({everything[0].skipped})", "install or name what is missing")
    return everything


def why_not(name: str, profile, protocol: str) -> str | None:
    """Why a loader cannot be measured, or None; raises UserError for an unknown one or a missing path."""
    lacks = loaders.missing(name)
    if lacks:
        return f"{', '.join(lacks)} not installed (pip install {' '.join(lacks)})"
    wanted = ["", "val_"] if protocol == "train" else [""]
    for prefix in wanted:
        if path_for(name, profile, prefix) is None:
            return f"profile.{prefix}{'photos' if loaders.reads(name) == 'photos' else 'dataset'} is not given"
    return None


def path_for(name: str, profile, prefix: str = "") -> str | None:
    """The data that a loader reads: the photo folder or the .beton (`prefix` val_: those for validation).

    Raises UserError where it is none.
    """
    kinds = {"photos": ["photos"], "beton": ["dataset"], "any": ["dataset", "photos"]}[loaders.reads(name)]
    given = [(kind, path) for kind in kinds if (path := getattr(profile, prefix + kind))]
    kind, path = given[0] if given else (None, None)
    if kind == "dataset":
        beton.read_index(path)
    elif kind == "photos" and not os.path.isdir(path):
        raise UserError(f"there is no folder {path}", "check the path")
    return path


def measure_load(name: str, profile, round_number: int, out: Path) -> dict:
    """Protocol load: one loader in a fresh process."""
    task = {
        "dataset": path_for(name, profile),
        "stages": profile.stages,
        "batch_size": profile.batch_size,
        "workers": profile.num_workers,
        "seed": round_number,
        "in_memory": bool(profile.in_memory),
    }
    told = json.dumps({"loader": name, "seconds": profile.seconds, "task": task})
    done = subprocess.run([sys.executable, "-m", "runtime.measure", told], cwd=_HERE, capture_output=True, text=True)
    lines = done.stderr.splitlines()
    said = lines.pop() if done.returncode == 2 and lines else ""
    print(*lines, sep="\n", end="\n" if lines else "", file=sys.stderr)
    if said:
        what, _, to_do = said.removeprefix("error: ").rpartition("; ")
        raise UserError(f"loader '{name}': {what}", to_do)
    if done.returncode:
        raise UserError(f"loader '{name}' failed with status {done.returncode}", "see the message above")
    return json.loads(done.stdout.splitlines()[-1])


def measure_train(name: str, config: str, profile, round_number: int, out: Path) -> dict:
    """Protocol train: the trainer with a recipe in a fresh process, seeded with the number of the round."""
    parent = Path(tempfile.mkdtemp(prefix=f"{name}_{round_number}_", dir=out))
    command = [
        sys.executable, str(_HERE / profile.trainer), f"--config-file={config}",
        f"--data.loader={name}", f"--data.train_dataset={path_for(name, profile)}",
        f"--data.val_dataset={path_for(name, profile, 'val_')}", f"--data.num_workers={profile.num_workers}",
        f"--data.in_memory={profile.in_memory}", f"--training.seed={round_number}",
        f"--logging.folder={parent}", "--logging.name=run",
    ]  # fmt: skip
    if profile.epochs:
        command.append(f"--training.epochs={profile.epochs}")
    trainer = subprocess.Popen(command)
    try:
        _, status, usage = os.wait4(trainer.pid, 0)
    except BaseException:
        trainer.terminate()
        trainer.wait()
        raise
    trainer.returncode = os.waitstatus_to_exitcode(status)
    if trainer.returncode == 2:
        sys.exit(2)  # it has said why, in one line
    if trainer.returncode:
        raise UserError(f"training with loader '{name}' failed with status {trainer.returncode}", "see above")
    images = sum(line["images"] for line in report.load_run(parent / "run")["epochs"])
    return {
        "folder": parent / "run",
        "cpu_seconds_per_image": (usage.ru_utime + usage.ru_stime) / images,
        "peak_memory_bytes": usage.ru_maxrss * 1024,
    }


if __name__ == "__main__":
    run(main)
