"""One machine with a GPU: its tests, and what training reaches of its ceiling -> one JSON.

    python benchmarks/gpu.py --bench.out=gpu.json

Draws its photos itself unless bench.photos is given, and writes them as JPEGs, raw pixels and blocks. Part `tests`:
pytest --gpu. Part `loaders`: ResNet-18 and LeViT-128S at 224 px from each file, from the photos through the standard
loader, through stock FFCV, and from one batch that is on the device already (`cached`), which is the ceiling; the goal
is 95 % of it. Part `models`: so many steps of four more models. What is not there is skipped, and named. The JSON is
written anew after every row. With bench.device=cpu and small numbers all of it is rehearsed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from runtime import preflight

preflight.check("timm", "torchvision")

import json
import math
import subprocess
import tempfile
import time

import torch
from fastargs import Config, Param, Section

import pipelines
from beton.errors import UserError
from beton.files import publish
from beton.sources import open_source
from runtime import machine
from runtime.config import FLOAT, INT, PATH, STR, between, one_of, parse, run
from runtime.outputs import check_file, make_folder
from runtime.profiling.process import ROOT
from runtime.profiling.runs import load_run, spread
from runtime.training.sections import BATCH, EPOCHS, WORKERS

_GOAL = 0.95
_PARTS = ("tests", "loaders", "models")
# trainer, recipe, what makes it a run at 224 px on one GPU
_COMPARED = {
    "resnet18": ("train_imagenet.py", "rn_configs/rn18_16_epochs.yaml"),
    "levit_128s": ("train_transformers.py", "vit_configs/levit_128s.yaml"),
}
_MORE = {
    "resnet50": ("train_imagenet.py", "rn_configs/rn50_16_epochs.yaml"),
    "faster_vit_0": ("train_transformers.py", "vit_configs/fastervit/faster_vit_0.yaml"),
    "vit_b_16": ("train_transformers.py", "vit_configs/vit_b_16.yaml"),
    "deit3_small": ("train_transformers.py", "vit_configs/deit3/s_1k_224.yaml"),
}
# name of the row: pipeline and file; the ceiling first
_LOADERS = {
    "cached": ("cached", "jpg"),
    "beton, jpg": ("beton", "jpg"),
    "beton, raw": ("beton", "raw"),
    "beton, blocks": ("beton", "blocks"),
    "ffcv, jpg": ("ffcv", "jpg"),
    "torch": ("torch", "photos"),
}


def declare() -> Config:
    """The section `bench`."""
    config = Config()
    Section("bench", "what to measure", config_descriptor=config).params(
        out=Param(PATH, "the JSON to write", required=True),
        parts=Param(STR, f"some of {', '.join(_PARTS)}, with commas", default=",".join(_PARTS)),
        photos=Param(PATH, "folder with train/<class>/ and val/<class>/ (null: drawn here)"),
        count=Param(between(INT, 10, 10**7), "photos for training that are drawn", default=16384),
        max_resolution=Param(between(INT, 1, 65535), "longest side of the stored photos in pixels", default=320),
        work=Param(PATH, "folder for photos, betons and runs (default: a temporary one)"),
        device=Param(one_of("cuda", "cpu"), "cpu: a rehearsal", default="cuda"),
        workers=Param(WORKERS, "threads or processes of a loader (null: one for each core)"),
        batch_size=Param(BATCH, "part loaders: photos in a batch", default=512),
        epochs=Param(EPOCHS, "part loaders: epochs; all but the first are timed", default=3),
        models_batch_size=Param(BATCH, "part models: photos in a batch", default=128),
        steps=Param(between(INT, 1, 10**6), "part models: steps at least", default=200),
        tests=Param(STR, "part tests: arguments of pytest", default="tests --gpu"),
        minutes=Param(between(FLOAT, 0.1, 600), "limit of each run", default=5),
    )
    return config


def main(argv: list[str]) -> None:
    """Run the parts one after the other; the JSON is complete as far as they have come."""
    bench = parse(declare(), argv).bench
    parts = bench.parts.split(",")
    if unknown := set(parts) - set(_PARTS):
        raise UserError(f"unknown part '{min(unknown)}'", f"use some of {', '.join(_PARTS)}")
    if bench.device == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no GPU", "run it where there is one, or rehearse with bench.device=cpu")
    check_file(Path(bench.out))
    for split in ("train", "val") if bench.photos else ():
        open_source("imagefolder", f"{bench.photos}/{split}", split)
    bench.workers = bench.workers or machine.facts()["cores"]
    about = {"machine": {**machine.facts(), "versions": machine.versions()}, "settings": vars(bench)}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(bench.work or temporary)
        make_folder(work)
        work, report = work.resolve(), Report(Path(bench.out), about)
        if "tests" in parts:
            report.add("tests", run_tests(bench))
        if "loaders" in parts or "models" in parts:
            files = write_files(bench, work)
        if "loaders" in parts:
            compare_loaders(bench, work, files, report)
        if "models" in parts:
            for model in _MORE:
                report.add("models", time_model(bench, work, files, model))
        report.finish()


class Report:
    """The JSON: rows by part, and the seconds that all of it has taken."""

    def __init__(self, path: Path, about: dict):
        self._path, self._started, self._results = path, time.monotonic(), about
        self._write()

    def add(self, part: str, row: dict) -> None:
        """Write and print a row."""
        self._results.setdefault(part, []).append(row)
        print(f"=> {part}: {json.dumps(row)}", flush=True)
        self._write()

    def finish(self) -> None:
        """Say that no part is missing."""
        self._results["complete"] = True
        self._write()

    def _write(self) -> None:
        self._results["seconds"] = round(time.monotonic() - self._started, 1)
        publish(self._path, json.dumps(self._results, indent=1) + "\n")


def run_tests(bench) -> dict:
    """How pytest ends: status 0 where all tests have passed; its last line; the tests that failed."""
    command = [sys.executable, "-m", "pytest", "-q", *bench.tests.split()]
    status, out, _ = call(command, bench.minutes)
    lines = out.strip().splitlines() or [""]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"status": status, "summary": lines[-1], "failed": failed}


def write_files(bench, work: Path) -> dict[str, dict[str, Path]]:
    """{"jpg": {"train": path, "val": path}, ...} of the betons, and of the "photos" that they are made of."""
    photos = Path(bench.photos or work / "photos").resolve()
    if bench.photos is None and not photos.exists():
        counts = ["--train", bench.count, "--val", max(10, bench.count // 20), "--workers", bench.workers]
        must([sys.executable, "-m", "beton.sources.generated", photos, *counts], bench)
    files = {"photos": {split: photos / split for split in ("train", "val")}}
    for mode in ("jpg", "raw", "blocks"):
        files[mode] = {split: work / f"{mode}_{split}.beton" for split in ("train", "val")}
        for split, path in files[mode].items():
            cfg = {
                "data_dir": photos / split, "split": split, "write_path": path, "write_mode": mode,
                "max_resolution": bench.max_resolution, "num_workers": bench.workers, "resume": 1,
            }  # fmt: skip
            must([sys.executable, ROOT / "write_dataset.py", *(f"--cfg.{k}={v}" for k, v in cfg.items())], bench)
    return files


def compare_loaders(bench, work: Path, files: dict, report: Report) -> None:
    """A row for each model and loader, with its share of the ceiling."""
    for model, (trainer, recipe) in _COMPARED.items():
        ceiling = None
        for name in _LOADERS:
            row = {"model": model, "loader": name}
            loader, kind = _LOADERS[name]
            given = {"training.batch_size": bench.batch_size, "training.epochs": bench.epochs}
            row |= train(bench, work, trainer, recipe, loader, files[kind], given)
            if rate := row.get("images_per_second"):
                ceiling = rate["median"] if name == "cached" else ceiling
                share = rate["median"] / ceiling if ceiling else None
                row |= {"share_of_cached": share, "goal_reached": share and share >= _GOAL}
            report.add("loaders", row)


def time_model(bench, work: Path, files: dict, model: str) -> dict:
    """The row of a model that is trained for bench.steps steps from JPEGs."""
    trainer, recipe = _MORE[model]
    photos = sum(1 for path in files["photos"]["train"].rglob("*") if path.is_file())
    in_an_epoch = max(1, photos // bench.models_batch_size)
    epochs = 1 + math.ceil(bench.steps / in_an_epoch)  # the first one starts and compiles
    given = {"training.batch_size": bench.models_batch_size, "training.epochs": epochs}
    return {"model": model, "steps": in_an_epoch * (epochs - 1)} | train(
        bench, work, trainer, recipe, "beton", files["jpg"], given
    )


def train(bench, work: Path, trainer: str, recipe: str, loader: str, data: dict, given: dict) -> dict:
    """Figures of a run, or why it was skipped: images_per_second and wait_share of all epochs but the first."""
    if packages := pipelines.missing(loader):
        return {"skipped": f"{', '.join(packages)} not installed"}
    folder = Path(tempfile.mkdtemp(prefix="run_", dir=work))
    given = given | {
        "data.train_dataset": data["train"], "data.val_dataset": data["val"], "data.loader": loader,
        "data.num_workers": bench.workers, "data.in_memory": 1, "training.device": bench.device,
        "training.distributed": 0, "training.precision": "auto", "logging.folder": folder, "logging.name": "run",
        "logging.log_level": 0, "validation.batch_size": given["training.batch_size"], "validation.resolution": 224,
    }  # fmt: skip
    if trainer == "train_imagenet.py":
        given |= {"resolution.min_res": 224, "resolution.max_res": 224}
    words = [f"--{name}={value}" for name, value in given.items()]
    status, _, errors = call([sys.executable, ROOT / trainer, f"--config-file={ROOT / recipe}", *words], bench.minutes)
    if status:
        lines = [line for line in errors.strip().splitlines() if line.strip()] or [f"status {status}"]
        # Status 2: this cannot be done here, and says why; anything else is a fault to be looked at
        return {"skipped" if status == 2 else "failed": lines[-1].removeprefix("error: ")}
    steady = load_run(folder / "run")["epochs"][1:]
    if not steady:
        raise UserError("with one epoch there is none to time", "give more bench.epochs")
    waited, trained = (sum(line[key] for line in steady) for key in ("wait_time", "train_time"))
    return {
        "images_per_second": spread([line["images_per_second"] for line in steady]),
        "wait_share": waited / trained,
        "train_loss": steady[-1]["train_loss"],
        "gpu_memory_bytes": max(line.get("gpu_memory_bytes") or 0 for line in steady) or None,
        "precision": steady[-1]["precision"],
    }


def call(command: list, minutes: float) -> tuple[int, str, str]:
    """Status, output and errors of a process; status 124 when it has not ended in time."""
    try:
        done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=60 * minutes)
    except subprocess.TimeoutExpired:
        return 124, "", f"it has not ended in {minutes:g} minutes"
    return done.returncode, done.stdout, done.stderr


def must(command: list, bench) -> None:
    """Run a process that has to succeed."""
    status, _, errors = call(command, bench.minutes)
    if status:
        last = (errors.strip().splitlines() or [f"status {status}"])[-1]
        what, _, to_do = last.removeprefix("error: ").rpartition("; ")
        raise UserError(what or to_do, to_do if what else "run it by itself")


if __name__ == "__main__":
    run(main)
