"""ViT-B/16 and LeViT-128S through the standard loader, stock FFCV and this toolkit: seconds, accuracy and loss of each
epoch, as the document that moved them to FFCV shows them -> a folder with a report and three plots for each model.

    python benchmarks/vit_levit.py --bench.photos=FOLDER --bench.folder=docs/vit_levit

FOLDER has train/<class>/ and val/<class>/. Both parts are written as the document writes them (500 0.50 90: at most
500 px, half of the photos as JPEG of quality 90, half raw). Then profile_loaders.py trains each model bench.seeds times
with each loader, in interleaved rounds. A model trains with as many photos as two cores can manage: of each class the
same share, the first by name.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from runtime import preflight

preflight.check("matplotlib", "timm", "torchvision")

import json
import os
import shutil
import subprocess
import tempfile

from fastargs import Config, Param, Section

from beton.errors import UserError
from beton.sources import open_source
from runtime.config import FLOAT, INT, PATH, STR, between, parse, run
from runtime.outputs import make_folder
from runtime.profiling.process import ROOT
from runtime.training.sections import EPOCHS

# Of each model, the photos to train with and to validate with
PHOTOS = {"vit_b_16": (320, 170), "levit_128s": (1536, 341)}
_PLOTS = ("runtime_per_epoch", "accuracy_per_epoch", "loss_per_epoch")


def declare() -> Config:
    """The section `bench`."""
    config = Config()
    Section("bench", "what to train", config_descriptor=config).params(
        photos=Param(PATH, "folder with train/<class>/ and val/<class>/", required=True),
        folder=Param(PATH, "folder for MODEL.json and MODEL_PLOT.png", required=True),
        loaders=Param(STR, "files in pipelines/, with commas", default="ffcv,beton,torch"),
        seeds=Param(between(INT, 1, 1000), "runs of each model with each loader", default=3),
        epochs=Param(EPOCHS, "instead of the recipes' numbers"),
        share=Param(between(FLOAT, 0, 1e6), "of the photos that PHOTOS says; 0: all there are", default=1),
        work=Param(PATH, "folder for photos, betons and runs (default: a temporary one)"),
    )
    return config


def main(argv: list[str]) -> None:
    """Write the betons, train, copy reports and plots."""
    bench = parse(declare(), argv).bench
    for split in ("train", "val"):
        open_source("imagefolder", f"{bench.photos}/{split}", split)
    make_folder(Path(bench.folder))
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(os.path.abspath(bench.work or temporary))
        make_folder(work)
        for model, counts in PHOTOS.items():
            photos = work / f"{model}_photos"
            for split, count in zip(("train", "val"), counts, strict=True):
                choose(Path(bench.photos) / split, bench.share * count, photos / split)
            keep(train(bench, model, photos, work / model), model, Path(bench.folder))


def choose(photos: Path, count: float, folder: Path) -> None:
    """Copy about `count` photos (0: all), of each class the same share, the first by name."""
    files = {each.name: sorted(each.iterdir()) for each in photos.iterdir() if each.is_dir()}
    share = min(1.0, count / sum(map(len, files.values()))) if count else 1.0
    for name, of_class in files.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for path in of_class[: max(1, round(share * len(of_class)))]:
            shutil.copy2(path, folder / name)


def train(bench, model: str, photos: Path, out: Path) -> Path:
    """Write the betons and train one model with every loader; returns the folder of the report."""
    where = {"IMAGENET_DIR": str(photos), "WRITE_DIR": f"{out}_betons", "PYTHON": sys.executable}
    call([str(ROOT / "write_imagenet.sh"), "500", "0.50", "90", "--cfg.num_workers=2"], where)
    given = {"protocol": "train", "trainer": "train_transformers.py", "loaders": bench.loaders, "out": out}
    given |= {"config": ROOT / "vit_configs" / "clothing" / f"document_{model}.yaml", "rounds": bench.seeds}
    for prefix, split in (("", "train"), ("val_", "val")):
        given |= {f"{prefix}photos": photos / split, f"{prefix}dataset": f"{out}_betons/{split}_500_0.50_90.beton"}
    given |= {"epochs": bench.epochs} if bench.epochs else {}
    given["title"] = f"{model} through {bench.loaders}"
    call([sys.executable, str(ROOT / "profile_loaders.py"), *(f"--profile.{k}={v}" for k, v in given.items())], {})
    return out


def keep(report: Path, model: str, out: Path) -> None:
    """Copy the report, without the folders of this machine, and the plots."""
    facts = json.loads((report / "report.json").read_text())
    paths = ("photos", "dataset", "out", "config", "cache")
    facts["settings"] = {k: v for k, v in facts["settings"].items() if not k.endswith(paths)}
    (out / f"{model}.json").write_text(json.dumps(facts, indent=1) + "\n")
    for plot in _PLOTS:
        shutil.copy(report / f"{plot}.png", out / f"{model}_{plot}.png")
    print(f"=> {out / model}.json")


def call(command: list[str], more: dict) -> None:
    """Run one of the scripts with its output on this terminal; raises UserError when it fails."""
    done = subprocess.run(command, env={**os.environ, **more}, cwd=ROOT)
    if done.returncode:
        script = next(Path(word).name for word in command if word.endswith((".py", ".sh")))
        raise UserError(f"{script} failed", "its message is above")


if __name__ == "__main__":
    run(main)
