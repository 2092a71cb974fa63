"""Stock FFCV 1.0.2 and this toolkit on the same photos and files, in one run -> JSON.

    python benchmarks/against_ffcv.py --bench.photos=FOLDER/train --bench.out=docs/against_ffcv.json

Writes the photos with both writers into bench.work (raw pixels among them: much larger than the photos), then
measures in rounds: in each one all rows in another order, the two sides of a row one after the other. A loader's
process stays open through the rounds, so that FFCV compiles once, except where a fresh one is what the row is about.
update_readme.py makes README's table of the JSON.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from runtime import preflight

preflight.check()

import json
import math
import os
import random
import signal
import subprocess
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from fastargs import Config, Param, Section
from PIL import Image, ImageOps

import beton
from benchmarks.update_readme import against_table
from beton.errors import UserError
from beton.files import publish
from beton.format.card import card_path, read_card
from beton.format.file import BetonFile
from beton.format.photo_files import to_rgb
from beton.sources import open_source
from runtime import machine
from runtime.config import FLOAT, INT, PATH, STR, between, parse, run
from runtime.outputs import check_file, make_folder
from runtime.profiling.process import ROOT, Measuring, measure_load
from runtime.profiling.runs import spread
from runtime.training.sections import WORKERS

_MAX_RESOLUTION, _QUALITY, _BATCH, _LARGE_BATCH = 500, 90, 128, 512
_SMALL_PHOTOS = 30_000  # an epoch of fewer would be over in no time
_COMPARED_PHOTOS = 200
_MAX_PSNR = 99.0  # of equal pixels
_LEFT_OUT = [
    "The page cache is warm: a first epoch is read before the clock starts. Cold disks and networks are not measured.",
    "FFCV's batches are views of buffers that it writes over; those of this toolkit stay unchanged while held.",
    "The seconds of this toolkit's writer include the checksum, the card and fsync; FFCV's writer has none of them.",
    "With passthrough the file holds JPEGs of the folder unchanged (`passed_through` of them), of whatever quality.",
    "First batch: from opening the loader on, including its imports but not those of Python and torch. FFCV compiles "
    "in every process; this toolkit caches compiled code on disk, from the first round on.",
    "Memory: above what the process had before; pages of mapped files are not counted.",
    "CPU time of the writers and GPUs are not measured.",
]


@dataclass(frozen=True)
class Load:
    """A loader on one of the files (or on the photos), measured by runtime.profiling.measure.

    `fresh`: in a new process each time.
    """

    loader: str
    file: str
    stages: str
    batch_size: int = _BATCH
    fresh: bool = False


@dataclass(frozen=True)
class Write:
    """All photos written by `writer`: "here" or "stock"."""

    writer: str
    mode: str
    max_resolution: int | None = _MAX_RESOLUTION
    passthrough: bool = False


@dataclass(frozen=True)
class Squares:
    """Small photos, written here: _SMALL_PHOTOS middle squares of the photos, of `side` pixels."""

    mode: str
    side: int


@dataclass(frozen=True)
class Stored:
    """Properties of a file: bytes a pixel, and (`fidelity`) the PSNR of its photos against the raw ones."""

    file: str
    fidelity: bool = False


@dataclass(frozen=True)
class Row:
    """One comparison. `goal` bounds `goal_of`: "ratio" (ours / theirs), "difference" or "ours"."""

    name: str
    what: str
    quantity: str
    ours: Load | Write | Stored
    theirs: Load | Write | Stored
    goal: float | None = None
    at_least: bool = True
    goal_of: str = "ratio"
    from_second_round: bool = False  # our compiled code is on disk then


# The files that rows name, and how they are written.
_FILES = {
    "jpg": Write("here", "jpg"),
    "blocks": Write("here", "blocks"),
    "stock_jpg": Write("stock", "jpg"),
    "stock_raw": Write("stock", "raw"),
    "raw_32_px": Squares("raw", 32),
    "raw_64_px": Squares("raw", 64),
    "jpg_64_px": Squares("jpg", 64),
}
_RRC, _RRC_160, _CENTER = "rrc(224)|flip|normalize", "rrc(160)|flip|normalize", "center(224)|normalize"
# FFCV's recipe for CIFAR-10
_CIFAR = "center(32, 1)|flip|translate(2, (125, 123, 114))|cutout(4, (125, 123, 114))|normalize"


def _pair(name: str, what: str, file: str, stages: str, goal: float, batch: int = _BATCH) -> Row:
    """Both loaders on one file."""
    sides = (Load(loader, file, stages, batch) for loader in ("beton", "ffcv"))
    return Row(name, what, "images_per_second", *sides, goal)


def _small(name: str, what: str, file: str, stages: str) -> Row:
    return _pair(name, what, file, stages, 3, _LARGE_BATCH)


_OURS, _THEIRS = Load("beton", "jpg", _RRC), Load("ffcv", "jpg", _RRC)
_FRESH = [Load(loader, "jpg", _RRC, fresh=True) for loader in ("beton", "ffcv")]
_BLOCKS = Load("beton", "blocks", _RRC)
_LARGE = [Load(loader, "jpg", _RRC, _LARGE_BATCH, fresh=True) for loader in ("beton", "ffcv")]
_UNCHANGED = Write("here", "jpg", None, passthrough=True), Write("stock", "jpg", None)
ROWS = [
    _pair("stock_jpg", "JPEG q90 written by stock FFCV: rrc 224, float32", "stock_jpg", _RRC, 2.3),
    _pair("jpg", "JPEG q90 written here (restart markers): rrc 224, float32", "jpg", _RRC, 2.8),
    _pair("jpg_uint8", "JPEG q90 written here: rrc 224, uint8", "jpg", "rrc(224)|flip", 3.0),
    _pair("jpg_center", "JPEG q90 written here: centre crop 224, float32", "jpg", _CENTER, 2.5),
    _pair("raw_224", "raw: rrc 224, float32", "stock_raw", _RRC, 4),
    _pair("raw_160", "raw: rrc 160, float32", "stock_raw", _RRC_160, 4.5),
    _small("small_rrc", "raw photos of 32 px: rrc 32, flip, float32", "raw_32_px", "rrc(32)|flip|normalize"),
    _small("small_plain", "raw photos of 32 px: not resized, flip, float32", "raw_32_px",
           "center(32, 1)|flip|normalize"),
    _small("small_cifar", "raw photos of 32 px: flip, translate, cutout, float32", "raw_32_px", _CIFAR),
    _small("small_raw_64", "raw photos of 64 px: rrc 64, flip, float32", "raw_64_px", "rrc(64)|flip|normalize"),
    _small("small_jpg_64", "JPEG q90 photos of 64 px: rrc 64, flip, float32", "jpg_64_px", "rrc(64)|flip|normalize"),
    Row("blocks_jpg", "blocks, FFCV on JPEG q90: rrc 224, float32", "images_per_second", _BLOCKS, _THEIRS, 6.5),
    Row("blocks_raw", "blocks, FFCV on raw: rrc 224, float32", "images_per_second", _BLOCKS,
        Load("ffcv", "stock_raw", _RRC), 3.2),
    Row("torch", "JPEG q90 written here, the standard loader on the photos instead of FFCV: rrc 224, float32",
        "images_per_second", _OURS, Load("torch", "photos", _RRC)),
    Row("blocks_bytes", "blocks, against raw: bytes a pixel", "bytes_per_pixel", Stored("blocks"),
        Stored("stock_raw"), 0.27, at_least=False),
    Row("blocks_psnr", "blocks, against JPEG q90: PSNR to the raw photos", "psnr", Stored("blocks", True),
        Stored("stock_jpg", True), 0, goal_of="difference"),
    Row("jpg_bytes", "JPEG q90 with restart markers, against that of FFCV: bytes a pixel", "bytes_per_pixel",
        Stored("jpg"), Stored("stock_jpg")),
    Row("write", "writing JPEG q90 of at most 500 px", "images_per_second", _FILES["jpg"], _FILES["stock_jpg"], 1.3),
    Row("write_passthrough", "writing JPEG q90 of any size (no cfg.max_resolution), here with passthrough",
        "images_per_second", *_UNCHANGED, 4),
    Row("first_batch", "first batch in a fresh process: JPEG q90, rrc 224, float32", "first_batch_seconds", *_FRESH,
        2, at_least=False, goal_of="ours", from_second_round=True),
    Row("memory", "peak memory: JPEG q90, rrc 224, float32, batches of 512", "peak_memory_bytes", *_LARGE, 0.5,
        at_least=False),
]  # fmt: skip


def declare() -> Config:
    """The section `bench`."""
    config = Config()
    Section("bench", "what to measure, and where", config_descriptor=config).params(
        photos=Param(PATH, "photo folder (one folder for each class)", required=True),
        out=Param(PATH, "the JSON to write", required=True),
        work=Param(PATH, "folder for the files that are compared, which stay there. null: a temporary one"),
        rounds=Param(between(INT, 1, 1000), "measurements of each side of a row", default=5),
        seconds=Param(between(FLOAT, 0, 3600), "time a loader at least so long (whole epochs)", default=3),
        workers=Param(WORKERS, "threads or processes of loaders and writers", default=2),
        only=Param(STR, "rows to measure, with commas; null: all"),
    )
    return config


def main(argv: list[str]) -> None:
    """Write the files, measure, write the JSON, print the table."""
    bench = parse(declare(), argv).bench
    rows = chosen(bench.only)
    photos, out = open_source("imagefolder", bench.photos, "train"), Path(bench.out)
    check_file(out)
    with tempfile.TemporaryDirectory(prefix="against_ffcv_") as temporary:
        work = Path(bench.work or temporary)
        make_folder(work)
        work = work.resolve()
        with Comparison(bench, work, len(photos)) as comparison:
            comparison.measure(rows)
        results = {
            "title": "Stock FFCV 1.0.2 and this toolkit on the same photos",
            "machine": {**machine.facts(), "versions": machine.versions()},
            "settings": {**comparison.settings(), "photos": len(photos), "classes": len(photos.classes)},
            "rows": [result(row, comparison.figures, comparison.failed) for row in rows],
            "left_out": _LEFT_OUT,
        }
    publish(out, json.dumps(results, indent=2) + "\n")
    print(against_table(results["rows"]))
    print(f"=> {out}")


def chosen(only: str | None) -> list[Row]:
    """The rows of these names, in the table's order; raises UserError for an unknown one."""
    names = [row.name for row in ROWS]
    wanted = names if only is None else only.split(",")
    for name in wanted:
        if name not in names:
            raise UserError(f"unknown row '{name}'", f"use {', '.join(names)}")
    return [row for row in ROWS if row.name in wanted]


class Comparison:
    """Measures the sides of rows: `figures` has one dict a round for each side, `failed` why there is none."""

    def __init__(self, bench, work: Path, count: int):
        self.bench, self.work, self.count = bench, work, count
        self.photos = Path(bench.photos).resolve()
        self.figures: dict = {}
        self.failed: dict = {}
        self._processes, self._opened = ExitStack(), {}  # of each Load: its process, and what opening it cost

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._processes.close()

    def settings(self) -> dict:
        """What the figures depend on; no paths."""
        given = {name: getattr(self.bench, name) for name in ("rounds", "seconds", "workers")}
        return {**given, "batch_size": _BATCH, "max_resolution": _MAX_RESOLUTION, "jpeg_quality": _QUALITY}

    def measure(self, rows: list[Row]) -> None:
        """Write the files that the rows need, then measure in rounds."""
        sides = [side for row in rows for side in (row.ours, row.theirs)]
        needed = {side.file for side in sides if not isinstance(side, Write)}
        if any(isinstance(side, Stored) and side.fidelity for side in sides):
            needed.add("stock_raw")  # the reference
        for name in _FILES:
            if name in needed:
                print(f"=> writing {name}", flush=True)
                self._try(name, lambda name=name: self.write(_FILES[name], self.path(name)))
        for number in range(self.bench.rounds):
            os.sync()  # else writing back would disturb the first measurements
            self._round(rows, number)

    def _round(self, rows: list[Row], number: int) -> None:
        """Measure each side of all rows once; a side that failed is not tried again."""
        done, draw = set(), random.Random(number)
        for row in draw.sample(rows, len(rows)):
            for whose in draw.sample(["ours", "theirs"], 2):
                side = getattr(row, whose)
                if side in done or side in self.failed or (number and isinstance(side, Stored)):
                    continue
                done.add(side)
                print(f"=> round {number + 1} of {self.bench.rounds}: {row.name}, {whose}", flush=True)
                figures = self._try(side, lambda side=side: self.one(side, number))
                if figures is not None:
                    self.figures.setdefault(side, []).append(figures)

    def _try(self, key, function):
        """The function's result, or None when it raises UserError, whose text goes to `failed`."""
        try:
            return function()
        except UserError as error:
            reason = error.what.replace(str(self.work), "bench.work").replace(str(self.photos), "bench.photos")
            self.failed[key] = reason
            print(f"=> not measured: {reason}", flush=True)
            return None

    def path(self, file: str) -> Path:
        """The path of a file; raises UserError when it could not be written."""
        if file in self.failed:
            raise UserError(self.failed[file], f"so there is no file '{file}'")
        return self.photos if file == "photos" else self.work / f"{file}.beton"

    def one(self, side: Load | Write | Stored, number: int) -> dict:
        """Measure a side once: quantity -> figure."""
        if isinstance(side, Stored):
            return self.stored(side)
        if isinstance(side, Write):
            path = self.work / "written.beton"
            try:
                written = self.write(side, path)
                return {"images_per_second": self.count / written["seconds"], **written}
            finally:
                path.unlink(missing_ok=True)
                card_path(path).unlink(missing_ok=True)
                os.sync()
        return self.load(side, number)

    def load(self, side: Load, number: int) -> dict:
        """Measure a loader once, after opening it in the first round."""
        task = {"dataset": str(self.path(side.file)), "stages": {"image": side.stages}, "batch_size": side.batch_size}
        task |= {"workers": self.bench.workers, "seed": number}
        if side.fresh:
            return measure_load(side.loader, task, self.bench.seconds)
        if side not in self._opened:
            process = self._processes.enter_context(Measuring(side.loader))
            self._opened[side] = process, process.ask("open", task=task)
        process, opened = self._opened[side]
        return opened | process.ask("measure", seconds=self.bench.seconds)

    def write(self, side: Write | Squares, path: Path) -> dict:
        """Write the photos to `path`; returns at least the `seconds` that it took without starting the process."""
        if isinstance(side, Squares):
            return write_squares(self, side, path)
        return (write_here if side.writer == "here" else write_stock)(self, side, path)

    def stored(self, side: Stored) -> dict:
        """Bytes a pixel of a file and, if asked for, the PSNR of its photos."""
        with BetonFile(self.path(side.file)) as file:
            image = file.columns["image"]
            pixels = (image.records["height"].astype(np.int64) * image.records["width"]).sum()
            found = {"bytes_per_pixel": float(image.sizes.sum() / pixels)}
            if side.fidelity:
                with BetonFile(self.path("stock_raw")) as raw:
                    found["psnr"] = fidelity(file, raw)
        return found


class _SquarePhotos:
    """A data set for beton.write."""

    def __init__(self, photos, side: int):
        self._photos, self.side, self.classes = photos, side, photos.classes

    def __len__(self) -> int:
        return _SMALL_PHOTOS

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        data, label = self._photos.read(index % len(self._photos))
        return ImageOps.fit(to_rgb(data), (self.side, self.side)), label


def write_squares(comparison: Comparison, side: Squares, path: Path) -> dict:
    """beton.write, in this process."""
    photos = _SquarePhotos(open_source("imagefolder", str(comparison.photos), "train"), side.side)
    card = beton.write(photos, path, workers=comparison.bench.workers, write_mode=side.mode, jpeg_quality=_QUALITY)
    return {"seconds": card["seconds"]}


def write_here(comparison: Comparison, side: Write, path: Path) -> dict:
    """write_dataset.py in a process of its own."""
    given = {
        "data_dir": comparison.photos, "split": "train", "write_path": path, "write_mode": side.mode,
        "max_resolution": side.max_resolution or "null", "jpeg_quality": _QUALITY,
        "num_workers": comparison.bench.workers,
    }  # fmt: skip
    if side.passthrough:
        given["passthrough"] = 1
    command = [sys.executable, "write_dataset.py", *(f"--cfg.{name}={value}" for name, value in given.items())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:] or [f"write_dataset.py failed with status {done.returncode}"]
        raise UserError(why[0].removeprefix("error: ").partition("; ")[0], "see write_dataset.py")
    return {key: value for key, value in read_card(card_path(path)).items() if key in ("seconds", "passed_through")}


def write_stock(comparison: Comparison, side: Write, path: Path) -> dict:
    """Stock FFCV's writer in a process group of its own and with a time limit: it hangs when something fails."""
    limit = 60 + 0.5 * comparison.count
    numbers = [side.max_resolution or 0, _QUALITY, comparison.bench.workers]
    command = [sys.executable, "benchmarks/stock_writer.py", comparison.photos, path, side.mode, *numbers]
    child = subprocess.Popen(
        list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        out, err = child.communicate(timeout=limit)
    except BaseException as error:
        os.killpg(child.pid, signal.SIGKILL)  # its workers would outlive it
        child.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            raise UserError(f"stock FFCV's writer has not ended after {limit:.0f} s", "check photos and disk") from None
        raise
    if child.returncode:
        why = err.strip().splitlines()[-1:] or [f"status {child.returncode}"]
        raise UserError(f"stock FFCV's writer failed ({why[0]})", "check photos and disk")
    return json.loads(out.splitlines()[-1])


def fidelity(file: BetonFile, raw: BetonFile) -> dict:
    """PSNR in dB of up to 200 photos of a file against the same ones of a raw file: median, min, max, n."""
    chosen = np.unique(np.linspace(0, len(raw) - 1, _COMPARED_PHOTOS).astype(np.int64)).tolist()
    return spread([psnr(pixels(file, sample), pixels(raw, sample)) for sample in chosen])


def pixels(file: BetonFile, sample: int) -> np.ndarray:
    """A stored photo (uint8, H x W x 3); JPEGs are decoded by Pillow, not by our kernels."""
    payload = file.payload(sample, "image")
    return np.asarray(to_rgb(payload)) if payload.startswith(b"\xff\xd8\xff") else file[sample].image


def psnr(found: np.ndarray, original: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of uint8 pixels."""
    error = float(np.square(found.astype(np.float64) - original).mean())
    return min(_MAX_PSNR, 10 * math.log10(255**2 / error)) if error else _MAX_PSNR


def result(row: Row, figures: dict, failed: dict) -> dict:
    """A row of the JSON from the figures of all rounds."""
    found = {"name": row.name, "what": row.what, "quantity": row.quantity}
    if row.goal is not None:
        found["goal"] = {"of": row.goal_of, "at_least" if row.at_least else "at_most": row.goal}
    reasons = [failed[side] for side in (row.ours, row.theirs) if side in failed]
    if reasons:
        return {**found, "not_measured": reasons[0]}
    for whose, side in (("ours", row.ours), ("theirs", row.theirs)):
        rounds = figures[side]
        if row.from_second_round:
            rounds = rounds[1:] or rounds
        values = [figure[row.quantity] for figure in rounds]
        found[whose] = values[0] if isinstance(values[0], dict) else spread(values)
        cpu = [f["cpu_seconds_per_image"] for f in rounds if "cpu_seconds_per_image" in f]
        found[f"{whose}_cpu_seconds_per_image"] = spread(cpu)["median"] if cpu else None
    if isinstance(row.ours, Write) and row.ours.passthrough:
        found["passed_through"] = figures[row.ours][0]["passed_through"]
    ours, theirs = found["ours"]["median"], found["theirs"]["median"]
    found |= {"ratio": ours / theirs, "difference": ours - theirs}
    if row.goal is not None:
        value = ours if row.goal_of == "ours" else found[row.goal_of]
        found["met"] = value >= row.goal if row.at_least else value <= row.goal
    return found


if __name__ == "__main__":
    run(main)
