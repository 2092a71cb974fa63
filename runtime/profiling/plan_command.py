"""The command `profile_loaders.py plan`: its answer in words and tables."""

import json
import tempfile
from pathlib import Path

import psutil

from beton import system
from beton.errors import UserError
from beton.files import publish
from beton.stages.parse import parse as parse_stages
from runtime.outputs import make_folder
from runtime.profiling import page, planner
from runtime.profiling.planner import Machine, Option
from runtime.profiling.plots import number
from runtime.verdict import seconds

_MODES = ("jpg", "blocks", "raw")


def main(plan) -> None:
    """Plan by the section `plan` and print the answer; with plan.out write it too."""
    parse_stages(plan.stages)
    modes = plan.modes.split(",")
    for mode in modes:
        if mode not in _MODES:
            raise UserError(f"unknown mode '{mode}' in plan.modes", f"use {', '.join(_MODES)}")
    folder, above = _split(plan.photos)
    machine = _machine(plan)
    photos = planner.Photos(folder, plan.sample)
    rate, options = _rate(plan, folder), []
    for size in _sizes(plan.sizes):
        for mode in modes:
            sampled = planner.measure(photos, mode, size, plan.quality, plan.stages, plan.seconds)
            options.append(planner.option(photos, sampled, mode, size, plan.quality, machine, rate))
            print(f"=> {mode}, {size or 'any'} px: {number(options[-1].images_per_second)} images/s", flush=True)
    best = planner.recommended(options, rate)
    blocks = _blocks(plan, photos, options, best, machine, rate, above)
    for kind, content in blocks[1:]:
        print(_as_text(kind, content))
    if plan.out:
        out = Path(plan.out)
        make_folder(out)
        made = planner.as_json(photos, options, best, machine, rate) | {"line": best.line(above)}
        publish(out / "plan.json", json.dumps(made, indent=2) + "\n")
        publish(out / "plan.md", page.markdown(blocks))
        publish(out / "plan.html", page.page("Plan", blocks))
        print(f"=> Plan in {out / 'plan.html'}")


def _split(photos: str) -> tuple[str, str]:
    """The folder that has the classes, and what IMAGENET_DIR is to be: the one that has train/."""
    inner = Path(photos) / "train"
    return (str(inner), photos) if inner.is_dir() else (photos, str(Path(photos).parent))


def _sizes(text: str) -> list[int | None]:
    """Longest sides in pixels; 0 stands for photos as they are."""
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = [-1]
    if not all(0 <= size <= 65535 for size in sizes):
        raise UserError(f"plan.sizes={text} are not sizes in pixels", "give e.g. 256,400,500, or 0 for as they are")
    return [size or None for size in dict.fromkeys(sizes)]


def _machine(plan) -> Machine:
    memory = plan.memory_gb * 1e9 if plan.memory_gb else psutil.virtual_memory().total
    disk = plan.disk_mb * 1e6 if plan.disk_mb else None
    if disk is None and plan.memory_gb is None:
        disk = planner.disk_rate(Path(tempfile.gettempdir()))
    return Machine(plan.cores or system.cores(), memory, disk)


def _rate(plan, folder: str) -> float | None:
    """Images per second that the model takes: given, or measured with the data cached."""
    if plan.rate:
        return plan.rate
    if plan.gpu_rate:
        return plan.gpu_rate * plan.gpus
    if not plan.config:
        return None
    # Only here, as it needs matplotlib and torch
    from runtime.profiling.rounds import measure_train
    from runtime.profiling.runs import load_run
    from runtime.profiling.selection import trainer_path

    with tempfile.TemporaryDirectory(prefix="plan-") as out:
        given = {"data.train_dataset": folder, "data.val_dataset": folder, "data.num_workers": system.cores()}
        given |= {"data.in_memory": 1, "training.epochs": 2, "logging.log_level": 0}
        done = measure_train(trainer_path(plan.trainer), "cached", plan.config, given, Path(out))
        rate = load_run(done["folder"])["epochs"][-1]["images_per_second"]
    print(f"=> the model takes {number(rate)} images/s with the data cached", flush=True)
    return rate * plan.gpus


def _blocks(plan, photos, options: list[Option], best: Option, machine: Machine, rate, above: str) -> list[tuple]:
    size = f"at most {best.size} px" if best.size else "as large as they are"
    takes = f"the model takes {number(rate)} images/s" if rate else "nothing says what the model takes (plan.rate)"
    headline = f"Write them as {best.mode}, {size}: {best.bytes / 1e9:.3g} GB, "
    headline += f"{number(best.images_per_second)} images/s; {takes}."
    notes = [
        f"{photos.count} photos; {len(photos.sample)} of them were written and read in each mode and size.",
        "Images/s are the loader's alone; a model that trains on the same cores takes its share of them.",
    ]
    if machine.cores != system.cores():
        text = f"Images/s for {machine.cores} cores are those of one core here times {machine.cores}"
        notes.append(f"{text}: cores like these, and memory that is fast enough, are taken for granted.")
    if any(not each.fits for each in options) and machine.disk is None:
        notes.append("What does not fit into memory is read from disk; how fast that is, plan.disk_mb says.")
    head = ["mode", "longest side", "GB", "images/s", "fits in memory", "s/epoch", "limit", "writing"]
    lines = [_line(each) for each in options]
    return [
        ("title", "How to store these photos"),
        ("verdict", headline),
        ("code", best.line(above)),
        ("numbers", [head, *lines]),
        ("list", notes),
    ]


def _line(each: Option) -> list[str]:
    return [
        each.mode, str(each.size or "as it is"), f"{each.bytes / 1e9:.3g}", number(each.images_per_second),
        "yes" if each.fits else "no", number(each.epoch_seconds), each.limit, seconds(each.write_seconds),
    ]  # fmt: skip


def _as_text(kind: str, content) -> str:
    if kind == "numbers":
        widths = [max(map(len, column)) for column in zip(*content, strict=True)]
        lines = ("  ".join(map(str.rjust, line, widths)) for line in content)
        return "\n".join(lines)
    if kind == "list":
        return "\n".join(f"- {item}" for item in content)
    return content if kind == "verdict" else f"\n    {content}\n"
