#!/usr/bin/env python
"""Loaders side by side on the same photos and stages -> report.

    python profile_loaders.py --profile.photos=FOLDER/train --profile.dataset=train.beton \
        --profile.stages='rrc(224)|flip|normalize' --profile.loaders=beton,torch --profile.out=DIR

Protocols, never mixed in a table. `load`: batches on the host, nothing else. `feed`: batches on the device
(profile.device). `train`: the real trainer (profile.trainer, profile.config, and the validation data); several
recipes make one report. `cached`: the same with one batch again and again, which is the ceiling of `train`.

profile.loaders=all measures every loader in pipelines/ (./setup.sh peers installs what they need). Before
anything is timed, each must give the same validation batches as the standard loader. Then rounds interleave
them: for load and feed one process a loader, which stays open; for train a fresh one each time. Ctrl-C ends
it with a report of what was measured. With profile.runs the report is made of finished run folders.

    python profile_loaders.py plan --plan.photos=FOLDER       # which storage mode and size for this machine and model
    python profile_loaders.py compare A/report.json B/report.json [--compare.out=DIR]

docs/report.md says what is in a report, and when two can be compared.
"""

from runtime import preflight

preflight.check("matplotlib")

from pathlib import Path

from fastargs import Config, Param, Section

from runtime.config import BOOL, FLOAT, INT, PATH, PATHS, STR, between, one_of, parse, run
from runtime.training.sections import BATCH, EPOCHS, WORKERS

NAMES = {
    "pipeline": "profile.loaders",
    "workers": "profile.num_workers",
    "batch_size": "profile.batch_size",
    "in_memory": "profile.in_memory",
    "dataset": "profile.dataset",
    "encodings": "profile.encodings",
    "device": "profile.device",
}
_LEAVES_OUT = [
    "The page cache is warm unless profile.cold=1: a first epoch is read before the clock starts. Networks are not "
    "measured.",
    "With profile.cold=1 the page cache is emptied of the data, not the disk's own cache; a loader is opened anew for "
    "each epoch, so that starting its workers counts.",
    "Filters differ: torch, webdataset, litdata, mosaicml and huggingface resize with Pillow's antialiased bilinear "
    "filter, torchvision_v2 and dali with their own antialiased ones, beton and ffcv by area; tf_data, grain, spdl and "
    "albumentations bilinear without antialiasing, which is less work.",
    "NAME@resized: photos as the .beton holds them, the same JPEG files where it holds JPEGs.",
    "A .beton holds photos that were downscaled and encoded once more; the photo folder holds the originals.",
    "`cached` repeats one batch: the ceiling of protocol train, not a loader to train with.",
]


def declare() -> Config:
    """The section `profile`."""
    config = Config()
    Section("profile", "what to measure", config_descriptor=config).params(
        protocol=Param(STR, "load, feed, train, cached, or several with commas", default="load"),
        loaders=Param(STR, "files in pipelines/, with commas, or all", default="beton,torch,cached"),
        photos=Param(PATH, "photo folder (one folder for each class), for loaders that read photos"),
        dataset=Param(PATH, "the same photos as a .beton"),
        encodings=Param(STR, "load, feed: original photos, resized as in the .beton, or both", default="original"),
        cache=Param(PATH, "folder for the data sets of other loaders, which stay. null: beside profile.out"),
        val_photos=Param(PATH, "train: photo folder for validation"),
        val_dataset=Param(PATH, "train: .beton for validation"),
        stages=Param(STR, "load, feed: the pipeline", default="rrc(224)|flip|normalize"),
        batch_size=Param(BATCH, "load, feed: photos in a batch", default=128),
        num_workers=Param(WORKERS, "threads or processes of a loader", default=2),
        workers_sweep=Param(STR, "load, feed: measure with each of these numbers of workers, e.g. 1,2,4"),
        device=Param(one_of("cpu", "cuda"), "feed: where batches go. null: cuda where there is a GPU"),
        cold=Param(BOOL, "load, feed: empty the page cache of the data before each epoch", default=0),
        in_memory=Param(BOOL, "the dataset fits into memory", default=1),
        rounds=Param(between(INT, 1, 1000), "measurements of each loader", default=5),
        seconds=Param(between(FLOAT, 0, 3600), "load, feed: time at least so long (whole epochs)", default=3),
        trainer=Param(PATH, "train: the training script", default="train_imagenet.py"),
        config=Param(PATHS, "train: recipes for the script, with commas", default="rn_configs/clothing_16_epochs.yaml"),
        epochs=Param(EPOCHS, "train: instead of the recipe's number"),
        runs=Param(PATHS, "make the report of these finished run folders, with commas"),
        keep=Param(BOOL, "train: keep the checkpoints and weights of the runs", default=0),
        title=Param(STR, "title of the report", default="Image loaders side by side"),
        out=Param(PATH, "folder for the report", required=True),
    )
    return config


def declare_plan() -> Config:
    """The section `plan`."""
    config = Config()
    Section("plan", "how to store photos for a machine and a model", config_descriptor=config).params(
        photos=Param(PATH, "photo folder: one folder for each class, or train/ with these in it", required=True),
        modes=Param(STR, "storage modes, with commas", default="jpg,blocks,raw"),
        sizes=Param(STR, "longest sides in pixels, with commas; 0: as they are", default="256,400,500"),
        quality=Param(between(INT, 1, 100), "of JPEGs", default=90),
        stages=Param(STR, "the stages of the training", default="rrc(224)|flip|normalize"),
        sample=Param(between(INT, 8, 100_000), "photos that are written and read in each mode and size", default=512),
        seconds=Param(between(FLOAT, 0, 600), "read each so long", default=2),
        rate=Param(between(FLOAT, 0.001, 1e9), "images per second that the model takes, on all GPUs together"),
        gpus=Param(between(INT, 1, 100_000), "GPUs", default=1),
        gpu_rate=Param(between(FLOAT, 0.001, 1e9), "instead: images per second that it takes on one GPU"),
        trainer=Param(PATH, "instead: measure it with the data cached, with this training script",
                      default="train_imagenet.py"),
        config=Param(PATH, "and this recipe"),
        cores=Param(between(INT, 1, 100_000), "of the machine; null: of this one"),
        memory_gb=Param(between(FLOAT, 0.1, 1e6), "of the machine, in 10^9 bytes; null: of this one"),
        disk_mb=Param(between(FLOAT, 0.1, 1e7), "that its disk reads in a second, in 10^6 bytes; null: measured here"),
        out=Param(PATH, "folder for plan.json, plan.md and plan.html"),
    )  # fmt: skip
    return config


def declare_compare() -> Config:
    """The section `compare`."""
    config = Config()
    Section("compare", "reports side by side", config_descriptor=config).params(
        out=Param(PATH, "folder for comparison.json, comparison.md and comparison.html"),
    )
    return config


def plan(argv: list[str]) -> None:
    """Plan by the command line."""
    settings = parse(declare_plan(), argv)
    from runtime.profiling import plan_command

    plan_command.main(settings.plan)


def compare(argv: list[str]) -> None:
    """Compare the reports that the command line names."""
    paths = [word for word in argv if not word.startswith("-")]
    settings = parse(declare_compare(), [word for word in argv if word.startswith("-")])
    from runtime.profiling import compare

    compare.main(paths, settings.compare.out)


COMMANDS = {"plan": plan, "compare": compare}


def main(argv: list[str]) -> None:
    """Measure, or collect finished runs, and write the report; or do what the first word says."""
    if argv and argv[0] in COMMANDS:
        COMMANDS[argv[0]](argv[1:])
        return
    settings = parse(declare(), argv)
    profile = settings.profile
    # Imported here, so that --help need not wait for matplotlib and torch
    from pipelines import get
    from runtime import machine
    from runtime.profiling import data, report
    from runtime.profiling.rounds import with_ceiling
    from runtime.profiling.runs import collect
    from runtime.profiling.selection import measure_all

    out = Path(profile.out)
    if profile.runs:
        rows, runs = collect(profile.runs.split(","))
        interrupted = False
    else:
        figures, interrupted = measure_all(profile, out)
        rows = with_ceiling([f.row() for f in figures], {f.loader for f in figures if get(f.loader).is_ceiling})
        runs = {f.label(): f.runs() for f in figures if f.protocol in ("train", "cached") and f.rounds}
    given = {name: value for name, value in settings.flat().items() if value is not None}
    alternatives = other_ways(rows, runs, profile)
    path = report.write_report(
        out,
        machine={**machine.facts(), "versions": machine.versions()},
        stages=profile.stages,
        settings={**given, "leaves_out": _LEAVES_OUT},
        rows=rows,
        runs=runs,
        title=profile.title,
        data=data.identity(profile.photos, profile.dataset),
        alternatives=alternatives,
        parts=parts_of_ours(rows, profile),
    )
    print(report.terminal_table(rows))
    for row in rows:
        if "skipped" in row:
            print(f"skipped {row['loader']} ({row['protocol']}): {row['skipped']}")
    print(f"=> Report in {path}")
    if interrupted:
        raise KeyboardInterrupt


def parts_of_ours(rows: list[dict], profile) -> dict:
    """Where the threads of our loader spend their time, if it was measured alone; apart from what was timed."""
    from runtime.profiling import planner

    if not any(row["loader"] == "beton" and row["protocol"].startswith("load") and "values" in row for row in rows):
        return {}
    parts = planner.loader_parts(profile.dataset, profile.stages, profile.num_workers, profile.batch_size)
    return {"beton alone": parts}


def other_ways(rows: list[dict], runs: dict, profile) -> list:
    """Storage modes and a size that would load faster, measured now, where our loader limits a training."""
    from runtime import verdict
    from runtime.profiling import planner
    from runtime.profiling.findings import breakdowns, findings

    of = findings(rows, runs)["of"]
    if not (of and profile.dataset and runs[of][0]["loader"] == "beton"):
        return []
    if verdict.limit(breakdowns(runs)[of]) != "loader":
        return []
    run = runs[of][-1]
    stages = str(run["params"]["data.train_stages"]).replace("{res}", str(run["epochs"][-1]["res"]))
    print("=> the loader is the limit: measuring other storage modes", flush=True)
    return planner.alternatives(profile.dataset, stages)


if __name__ == "__main__":
    run(main, NAMES)
