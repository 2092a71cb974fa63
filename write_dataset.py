#!/usr/bin/env python
"""Write one source to one .beton and its card.

    python write_dataset.py --cfg.data_dir=imagenet/train --cfg.split=train --cfg.write_path=train.beton \
        --cfg.write_mode=proportion --cfg.compress_probability=0.5 --cfg.max_resolution=500

and look into one: `python write_dataset.py check|info|preview|compare FILE ...` (pipelines/check.py).

The parameters are those of ffcv-imagenet's write_imagenet.py and a few more: --help.
"""

import runtime.start  # noqa: F401  checks the set-up; must come before torch

# isort: split
import signal
import sys
from dataclasses import fields

from fastargs import Config, Param, Section
from tqdm import tqdm

from pipelines import check
from pipelines.sources import open_source
from pipelines.writer import WriteOptions, write
from runtime.config import BOOL, FLOAT, INT, PATH, STR, between, one_of, parse, run


def declare() -> Config:
    """The section `cfg`."""
    config = Config()
    Section("cfg", "what to write, and how", config_descriptor=config).params(
        dataset=Param(STR, "source: a file in pipelines/sources, or imagenet for imagefolder", default="imagenet"),
        split=Param(one_of("train", "val"), "train or val", required=True),
        data_dir=Param(PATH, "where the source finds its data (not for generated)"),
        write_path=Param(PATH, "the .beton to write", required=True),
        write_mode=Param(
            one_of("raw", "jpg", "blocks", "smart", "proportion"), "how photos are stored", default="smart"
        ),
        max_resolution=Param(between(INT, 1, 65535), "longest side in pixels; null: as it is"),
        compress_probability=Param(between(FLOAT, 0, 1), "proportion: share of JPEGs", default=0.5),
        jpeg_quality=Param(between(INT, 1, 100), "quality of the JPEGs", default=90),
        smart_threshold=Param(between(INT, 0, 10**12), "smart: JPEG for photos of more bytes than this; null: none"),
        rest=Param(one_of("raw", "blocks"), "proportion and smart: what photos that are no JPEG become", default="raw"),
        restart_markers=Param(BOOL, "JPEGs have restart markers; 0: they have none", default=True),
        passthrough=Param(BOOL, "store plain JPEGs that need no shrinking as they are", default=False),
        num_workers=Param(between(INT, 1, 1024), "threads", default=16),
        chunk_size=Param(between(INT, 1, 10**6), "photos that a thread takes at a time, at most", default=100),
        subset=Param(between(INT, -1, 10**8), "only the first so many photos; -1: all", default=-1),
        seed=Param(between(INT, 0, 2**31 - 1), "chooses the JPEGs of proportion", default=0),
        on_error=Param(one_of("raise", "skip"), "a photo that cannot be read: stop, or leave it out", default="raise"),
        resume=Param(BOOL, "go on with an interrupted write; keep what that needs; leave a whole file", default=False),
    )
    return config


def main(argv: list[str]) -> None:
    """Read the settings, write, say what came out; or do what the first word says."""
    if argv and argv[0] in check.COMMANDS:
        sys.exit(check.main(argv))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the temporary file goes
    cfg = parse(declare(), argv).cfg
    count = cfg.subset if cfg.subset >= 0 else None
    source = open_source(cfg.dataset, cfg.data_dir, cfg.split, seed=cfg.seed, count=count)
    options = WriteOptions(**{f.name: getattr(cfg, f.name) for f in fields(WriteOptions)})
    if cfg.write_mode == "smart" and cfg.smart_threshold is None:
        print("=> smart without cfg.smart_threshold stores no photo as JPEG, as FFCV does")
    about = {"name": cfg.dataset, "data_dir": cfg.data_dir, "split": cfg.split}
    total = len(source) if count is None else min(count, len(source))
    said: list[str] = []
    try:
        # No bar in the first second, so that an error found there is one line
        with tqdm(total=total, unit="images", smoothing=0.05, delay=1, disable=None) as bar:
            card = write(source, cfg.write_path, options, about, bar.update, cfg.resume, said.append)
    finally:
        for text in said:  # not while the bar is there
            print(f"=> {text}")
    report(cfg.write_path, card)


def report(path: str, card: dict) -> None:
    """Print what was written."""
    count, seconds = card["num_samples"], card["seconds"]
    print(f"=> {path}: {count} photos, {len(card['classes'])} classes, {card['bytes'] / 1e6:.1f} MB")
    for mode, size in card["bytes_per_mode"].items():
        print(f"   {mode}: {card['samples_per_mode'][mode]} photos, {size / 1e6:.1f} MB")
    if card["passed_through"]:
        print(f"   passed through: {card['passed_through']} of the JPEGs")
    rate = (count - card["resumed"]) / max(seconds, 0.001)
    print(f"   {seconds:.1f} s, {rate:.0f} images/s, SHA-256 {card['sha256'][:16]}...")
    if card["skipped"]:
        print(f"   left out: {len(card['skipped'])} photos that cannot be read (listed in {path}.json)")


if __name__ == "__main__":
    run(main)
