"""Is the planner right? What it says of each mode and size, beside what is then written and measured -> JSON.

    python benchmarks/plan_check.py --bench.photos=FOLDER --bench.out=docs/plan_check.json

FOLDER holds a folder for each class. The planner writes and reads a sample; then all photos are written in each mode
and size, and loaded in a process of their own (protocol load).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from runtime import preflight

preflight.check("matplotlib")

import json
import os
import subprocess
import tempfile

from fastargs import Config, Param, Section

from beton import system
from beton.errors import UserError
from beton.files import publish
from beton.sources import open_source
from runtime import machine
from runtime.config import FLOAT, INT, PATH, STR, between, parse, run
from runtime.outputs import check_file
from runtime.profiling.process import ROOT, measure_load
from runtime.profiling.runs import spread

_BATCH, _STAGES = 128, "rrc(224)|flip|normalize"


def declare() -> Config:
    """The section `bench`."""
    config = Config()
    Section("bench", "what to plan", config_descriptor=config).params(
        photos=Param(PATH, "photo folder: one folder for each class", required=True),
        out=Param(PATH, "the JSON to write", required=True),
        modes=Param(STR, "storage modes, with commas", default="jpg,blocks,raw"),
        sizes=Param(STR, "longest sides in pixels, with commas", default="256,400"),
        sample=Param(between(INT, 8, 100_000), "photos that the planner writes and reads", default=512),
        seconds=Param(between(FLOAT, 0, 600), "read each so long", default=3),
        rounds=Param(between(INT, 1, 1000), "plan, and write and read everything, so many times", default=3),
    )
    return config


def main(argv: list[str]) -> None:
    """Plan, write, measure, write the JSON, print its rows."""
    bench = parse(declare(), argv).bench
    check_file(Path(bench.out))
    open_source("imagefolder", bench.photos, "train")
    with tempfile.TemporaryDirectory() as folder:
        found = [one_round(bench, Path(folder)) for _ in range(bench.rounds)]
    rows = [together(of_one) for of_one in zip(*found, strict=True)]
    names = ("modes", "sizes", "sample", "seconds", "rounds")
    settings = {name: getattr(bench, name) for name in names} | {"stages": _STAGES}
    facts = {"machine": machine.facts(), "versions": machine.versions(), "settings": settings, "rows": rows}
    publish(Path(bench.out), json.dumps(facts, indent=1) + "\n")
    for row in rows:
        print(row)


def one_round(bench, folder: Path) -> list[dict]:
    """Plan, then write and load each option of the plan."""
    names = ("photos", "modes", "sizes", "sample", "seconds")
    given = [f"--plan.stages={_STAGES}", *(f"--plan.{name}={getattr(bench, name)}" for name in names)]
    call([str(ROOT / "profile_loaders.py"), "plan", *given, f"--plan.out={folder}"])
    plan = json.loads((folder / "plan.json").read_text())
    return [compared(bench, option, folder / "all.beton") for option in plan["options"]]


def together(rounds: tuple[dict, ...]) -> dict:
    """The medians of a row's rounds, and their ratios."""
    bytes_planned, written = (rounds[0][key] for key in ("planned_bytes", "bytes"))
    planned = spread([row["planned_images_per_second"] for row in rounds])
    speed = spread([row["images_per_second"] for row in rounds])
    return {
        "what": rounds[0]["what"],
        "planned_bytes": bytes_planned,
        "bytes": written,
        "bytes_ratio": bytes_planned / written,
        "planned_images_per_second": planned,
        "images_per_second": speed,
        "speed_ratio": planned["median"] / speed["median"],
    }


def compared(bench, option: dict, path: Path) -> dict:
    """Write all photos as an option of the plan says, and load them."""
    more = [f"--cfg.max_resolution={option['size']}"] if option["size"] else []
    call([
        str(ROOT / "write_dataset.py"), f"--cfg.data_dir={bench.photos}", "--cfg.split=train",
        f"--cfg.write_path={path}", f"--cfg.write_mode={option['mode']}", f"--cfg.jpeg_quality={option['quality']}",
        f"--cfg.num_workers={system.cores()}", *more,
    ])  # fmt: skip
    size = os.path.getsize(path)
    task = {"dataset": str(path), "stages": {"image": _STAGES}, "batch_size": _BATCH, "workers": system.cores()}
    speed = measure_load("beton", task, bench.seconds)["images_per_second"]
    path.unlink()
    return {
        "what": f"{option['mode']}, {option['size'] or 'as they are'}",
        "planned_bytes": option["bytes"],
        "bytes": size,
        "planned_images_per_second": option["images_per_second"],
        "images_per_second": speed,
    }


def call(command: list[str]) -> None:
    """Run one of the scripts; raises UserError when it fails."""
    done = subprocess.run([sys.executable, *command], cwd=ROOT)
    if done.returncode:
        raise UserError(f"{Path(command[0]).name} failed", "its message is above")


if __name__ == "__main__":
    run(main)
