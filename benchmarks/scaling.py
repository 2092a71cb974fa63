"""Fill the tables of docs/scaling.md: what ImageNet-1k and 21k take on 8 GPUs and on 8 machines with 8 each.

    python benchmarks/scaling.py --scale.out=docs/scaling.md
    python benchmarks/scaling.py --check                       # only report whether that is up to date
    python benchmarks/scaling.py --scale.out=mine.md --scale.gpu_rates=mine.json --scale.megapixels=0.25

Measured here, on photos of clothing: CPU seconds for an image (against_ffcv.json, augment_*.json), bytes for a pixel
of blocks and a rank's memory (against_ffcv.json). Published: GPUs' rates (gpu_rates.json names its source), photos of
the data sets (DATA_SETS), and their pixels and JPEGs' bytes (FFCV_GB). Everything else is arithmetic on these:

    cores = images per second x CPU seconds for an image x HEADROOM
    bytes = photos x pixels of a photo x bytes for a pixel
"""

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from fastargs import Config, Param, Section

from beton.errors import UserError
from beton.files import publish
from runtime.config import FLOAT, PATH, between, parse, run
from runtime.outputs import check_file
from runtime.profiling.page import md_table
from runtime.profiling.plots import number

DOCS = Path(__file__).resolve().parent.parent / "docs"
# Photos to train with: ILSVRC 2012; the whole of ImageNet as of 2011 (21,841 classes)
DATA_SETS = {"ImageNet-1k": 1_281_167, "ImageNet-21k": 14_197_122}
# GB of ImageNet-1k at 512 px as FFCV writes it, JPEGs of quality 90: https://docs.ffcv.io/benchmarks.html
FFCV_GB = {"raw": 616.18, "jpg": 65.47}
# Name, its name in gpu_rates.json, the augmentation of its recipe
MODELS = [
    ("ResNet-50", "resnet50", "crop and flip"),
    ("LeViT-128S", "levit_128s", "RandAugment"),
    ("ViT-B/16", "vit_base_patch16_224", "3-Augment"),
]
FLEETS = [("8 GPUs", 1), ("8 x 8 GPUs", 8)]  # machines, of 8 GPUs each
GPUS = 8
HEADROOM = 1.15  # a loader must be so much faster than the model to be never waited for, as in profile_loaders.py plan
FASTER = (1, 2, 4)  # GPUs that are so many times as fast as those of gpu_rates.json
_BLOCK = re.compile(r"(<!-- (\w+)(?: (\S+))? -->\n).*?(<!-- end -->)", re.DOTALL)


def declare() -> Config:
    """The section `scale`."""
    config = Config()
    Section("scale", "what a training takes", config_descriptor=config).params(
        gpu_rates=Param(
            PATH, "images per second on a GPU, as docs/gpu_rates.json", default=str(DOCS / "gpu_rates.json")
        ),
        megapixels=Param(
            between(FLOAT, 0.001, 100),
            "of a stored photo, in the mean",
            default=round(FFCV_GB["raw"] * 1e3 / 3 / DATA_SETS["ImageNet-1k"], 3),
        ),
        jpg_bytes=Param(
            between(FLOAT, 0.001, 10),
            "bytes for a pixel of its JPEG",
            default=round(3 * FFCV_GB["jpg"] / FFCV_GB["raw"], 3),
        ),
        out=Param(PATH, "where the page is written, as docs/scaling.md", required=True),
    )
    return config


class Measured:
    """What the JSON files say; `core`: augmentation and mode -> CPU seconds for an image, `pixel`: mode -> bytes."""

    def __init__(self, settings):
        rows = {row["name"]: row for row in _read(DOCS / "against_ffcv.json")["rows"]}
        self.core = {
            ("crop and flip", "jpg"): rows["jpg"]["ours_cpu_seconds_per_image"],
            ("crop and flip", "blocks"): rows["blocks_jpg"]["ours_cpu_seconds_per_image"],
            ("crop and flip", "raw"): rows["raw_224"]["ours_cpu_seconds_per_image"],
            ("RandAugment", "jpg"): _augmented("augment_randaugment.json"),
            ("3-Augment", "jpg"): _augmented("augment_3.json"),
        }
        self.pixel = {
            "jpg": settings.scale.jpg_bytes * rows["jpg_bytes"]["ratio"],  # restart markers take some more
            "blocks": rows["blocks_bytes"]["ours"]["median"],
            "raw": 3.0,
        }
        self.rank_memory = rows["memory"]["ours"]["median"]
        self.pixels = settings.scale.megapixels * 1e6
        self.rates = _read(Path(settings.scale.gpu_rates)).get("rates", {})
        if missing := [name for _, name, _ in MODELS if not isinstance(self.rates.get(name), int | float)]:
            what = f"{settings.scale.gpu_rates} has no rate of {', '.join(missing)}"
            raise UserError(what, "write it as docs/gpu_rates.json is")

    def image_bytes(self, mode: str) -> float:
        """Bytes of a stored photo in the mean."""
        return self.pixels * self.pixel[mode]


def _augmented(name: str) -> float:
    (row,) = (row for row in _read(DOCS / name)["rows"] if row["loader"] == "beton")
    return row["cpu_seconds_per_image"]


def _read(path: Path) -> dict:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error})", "give a JSON file") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} has no names at its top level", "write it as docs/gpu_rates.json is")
    return content


def loads(found: Measured) -> list[list[str]]:
    """What a core loads."""
    head = ["augmentation", "stored as", "CPU time per image, us", "images/s of a core"]
    return [head] + [[*key, number(1e6 * cpu), number(1 / cpu)] for key, cpu in found.core.items()]


def storage(found: Measured) -> list[list[str]]:
    """Bytes of the data sets."""
    head = ["data set", "photos", *(f"{mode}, GB" for mode in found.pixel)]
    sizes = [found.image_bytes(mode) / 1e9 for mode in found.pixel]
    return [head] + [[name, f"{n:,}", *(number(n * size) for size in sizes)] for name, n in DATA_SETS.items()]


def cores(found: Measured) -> list[list[str]]:
    """Loader cores for a GPU, for GPUs of several speeds."""
    head = ["model", "augmentation", "stored as", *(f"cores per GPU, {times} x" for times in FASTER)]
    lines = []
    for model, name, augmentation in MODELS:
        for (augmented, mode), cpu in found.core.items():
            if augmented == augmentation and mode != "raw":
                needed = [number(found.rates[name] * times * cpu * HEADROOM) for times in FASTER]
                lines.append([model, augmentation, mode, *needed])
    return [head, *lines]


def training(found: Measured) -> list[list[str]]:
    """An epoch on one machine and on eight, of JPEGs."""
    head = [
        "data set", "model", "on", "images/s", "minutes per epoch", "loader cores per machine",
        "memory per machine if all is in it, GB", "or reads per machine, MB/s",
    ]  # fmt: skip
    lines = []
    for data_set, photos in DATA_SETS.items():
        held = photos * found.image_bytes("jpg") + GPUS * found.rank_memory
        for model, name, augmentation in MODELS:
            on_machine = GPUS * found.rates[name]
            used, read = on_machine * found.core[augmentation, "jpg"] * HEADROOM, on_machine * found.image_bytes("jpg")
            for fleet, machines in FLEETS:
                rate = machines * on_machine
                numbers = [
                    number(rate),
                    number(photos / rate / 60),
                    number(used),
                    number(held / 1e9),
                    number(read / 1e6),
                ]
                lines.append([data_set, model, fleet, *numbers])
    return [head, *lines]


def simulation(name: str) -> str:
    """The rows of benchmarks/quasi_random.py, if it has been run."""
    if not (DOCS / name).exists():
        return f"Not run yet: `python benchmarks/quasi_random.py --bench.out=docs/{name}`"
    content = _read(DOCS / name)
    head = [
        "photos lie", "cache per machine, GB", "most that a rank holds, GB", "reads of a page in an epoch",
        "classes in a batch", "of one class in the next step",
    ]  # fmt: skip
    cells = [
        [row["file"], *map(number, (row["cache_gb"], row["peak_bytes_of_rank"] / 1e9, row["pages_read"])),
         *map(number, (row["classes"], row["same_class"]["next_step"]))]
        for row in content["rows"]
    ]  # fmt: skip
    asked = content["settings"]
    what = f"{asked['samples']:,} photos, {asked['ranks']} ranks on {asked['machines']} machines"
    return f"{what}:\n\n{md_table([head, *cells], numbers=True)}"


def filled(text: str, found: Measured) -> str:
    """The page with its tables anew."""
    tables = {table.__name__: table for table in (loads, storage, cores, training)}

    def table(match: re.Match) -> str:
        begin, name, file, end = match.groups()
        made = simulation(file) if name == "simulation" else md_table(tables[name](found), numbers=True)
        return f"{begin}{made}\n{end}"

    return _BLOCK.sub(table, text)


def main(argv: list[str]) -> None:
    """Write the page, or check it."""
    check, page = argv == ["--check"], DOCS / "scaling.md"
    settings = parse(declare(), [f"--scale.out={page}"] if check else argv)
    out, template = Path(settings.scale.out), page.read_text()
    new = filled(template, Measured(settings))
    if check:
        if new != template:
            sys.exit("error: docs/scaling.md is not up to date; run benchmarks/scaling.py --scale.out=docs/scaling.md")
        return
    check_file(out)
    publish(out, new)


if __name__ == "__main__":
    run(main)
