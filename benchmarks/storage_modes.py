"""The same recipe trained from JPEGs, raw pixels and blocks: does the storage mode cost accuracy? -> JSON.

    python benchmarks/storage_modes.py --bench.photos=FOLDER --bench.out=docs/clothing_modes.json

FOLDER has train/<class>/ and val/<class>/. Both parts are written once for each mode; then bench.seeds runs of
train_imagenet.py for each mode, bench.jobs at a time, with one torch thread each.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from runtime import preflight

preflight.check("timm", "torchvision")

import json
import os
import statistics
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor

from fastargs import Config, Param, Section

import train_imagenet
from beton.errors import UserError
from beton.sources import open_source
from runtime import machine
from runtime.config import INT, PATH, between, parse, read_files, run
from runtime.outputs import check_file, make_folder
from runtime.profiling.process import ROOT
from runtime.training.sections import EPOCHS

_MODES = ("jpg", "raw", "blocks")


def declare() -> Config:
    """The section `bench`."""
    config = Config()
    Section("bench", "what to train", config_descriptor=config).params(
        photos=Param(PATH, "folder with train/<class>/ and val/<class>/", required=True),
        out=Param(PATH, "the JSON to write", required=True),
        recipe=Param(PATH, "for train_imagenet.py", default="rn_configs/clothing_16_epochs.yaml"),
        epochs=Param(EPOCHS, "instead of the recipe's number"),
        resolution=Param(between(INT, 32, 3072), "instead of the recipe's, from the first epoch to the last"),
        max_resolution=Param(between(INT, 1, 65535), "longest side of the stored photos in pixels", default=256),
        seeds=Param(between(INT, 1, 1000), "runs of each mode", default=5),
        jobs=Param(between(INT, 1, 1024), "runs at a time", default=2),
        work=Param(PATH, "folder for betons and runs (default: a temporary one)"),
    )
    return config


def main(argv: list[str]) -> None:
    """Write the betons, train, write the JSON."""
    bench = parse(declare(), argv).bench
    read_files(train_imagenet.declare(), [bench.recipe])
    check_file(Path(bench.out))
    for split in ("train", "val"):
        open_source("imagefolder", f"{bench.photos}/{split}", split)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(bench.work or temporary)
        make_folder(work)
        for mode in _MODES:
            for split in ("train", "val"):
                write(bench, work, mode, split)
        # Seeds outermost: a run that is stopped has trained every mode about equally often
        tasks = [(mode, seed) for seed in range(bench.seeds) for mode in _MODES]
        with ThreadPoolExecutor(bench.jobs) as pool:
            found = list(pool.map(lambda task: train(bench, work, *task), tasks))
    rows = []
    for mode in _MODES:
        values = [top_1 for (of, _), top_1 in zip(tasks, found, strict=True) if of == mode]
        top_1 = {"mean": statistics.mean(values), "min": min(values), "max": max(values), "n": len(values)}
        top_1 |= {"std": statistics.stdev(values) if len(values) > 1 else None, "values": values}
        rows.append({"loader": f"beton, {mode}", "top_1": top_1})
    settings = {name: getattr(bench, name) for name in ("recipe", "epochs", "resolution", "max_resolution", "seeds")}
    facts = {"machine": machine.facts(), "versions": machine.versions(), "settings": settings, "rows": rows}
    Path(bench.out).write_text(json.dumps(facts, indent=1) + "\n")
    print(f"=> {bench.out}")


def write(bench, work: Path, mode: str, split: str) -> None:
    """One .beton, unless it is there already."""
    if (work / f"{mode}_{split}.beton").exists():
        return
    cfg = {
        "data_dir": f"{bench.photos}/{split}", "split": split, "write_path": work / f"{mode}_{split}.beton",
        "write_mode": mode, "max_resolution": bench.max_resolution, "num_workers": 2,
    }  # fmt: skip
    call("write_dataset.py", [f"--cfg.{name}={value}" for name, value in cfg.items()])


def train(bench, work: Path, mode: str, seed: int) -> float:
    """Top-1 on the validation photos after the last epoch of one run."""
    name = f"{mode}_{seed}"
    arguments = [
        f"--config-file={bench.recipe}", f"--data.train_dataset={work / f'{mode}_train.beton'}",
        f"--data.val_dataset={work / f'{mode}_val.beton'}", "--data.num_workers=1", "--data.in_memory=1",
        f"--training.seed={seed}", f"--logging.folder={work}", f"--logging.name={name}", "--logging.log_level=0",
    ]  # fmt: skip
    if bench.epochs:
        peak, ramp = max(1, bench.epochs // 8), bench.epochs
        arguments += [f"--training.epochs={bench.epochs}", f"--lr.lr_peak_epoch={peak}"]
        arguments += [f"--resolution.start_ramp={ramp}", f"--resolution.end_ramp={ramp}"]
    if bench.resolution:
        arguments += [f"--resolution.{which}={bench.resolution}" for which in ("min_res", "max_res")]
        # Random crops show things larger than whole photos do (Touvron et al. 2019, FixRes)
        arguments.append(f"--validation.resolution={round(bench.resolution * 4 / 3 / 32) * 32}")
    call("train_imagenet.py", arguments)
    lines = (work / name / "log.jsonl").read_text().splitlines()
    top_1 = json.loads(lines[-1])["top_1"]
    print(f"=> {name}: {top_1:.4f}", flush=True)
    return top_1


def call(script: str, arguments: list[str]) -> None:
    """Run one of the scripts; raises UserError when it fails."""
    command = [sys.executable, str(ROOT / script), *arguments]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        what, _, to_do = lines[-1].removeprefix("error: ").rpartition("; ")
        raise UserError(f"{script} failed: {what or to_do}", to_do if what else f"run {script} by itself")


if __name__ == "__main__":
    run(main)
