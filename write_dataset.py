#!/usr/bin/env python
"""Write one source to one .beton and its card.

    python write_dataset.py --cfg.data_dir=imagenet/train --cfg.split=train --cfg.write_path=train.beton \
        --cfg.write_mode=proportion --cfg.compress_probability=0.5 --cfg.max_resolution=500

`python write_dataset.py COMMAND FILE ...` is `python -m beton COMMAND FILE ...`: check, info, preview, compare, ...

The parameters are those of ffcv-imagenet's write_imagenet.py and a few more: --help.
"""

from runtime import preflight

preflight.check()

import os
import signal
import sys
from dataclasses import fields
from pathlib import Path

from fastargs import Config, Param, Section

from beton.errors import UserError
from beton.format.parts import part_path
from runtime.config import BOOL, FLOAT, INT, PATH, STR, between, one_line, one_of, parse, run
from runtime.parts import part_of


def declare() -> Config:
    """The section `cfg`."""
    config = Config()
    Section("cfg", "what to write, and how", config_descriptor=config).params(
        dataset=Param(STR, "source: a file in beton/sources, e.g. imagenet (class folders)", default="imagenet"),
        split=Param(one_of("train", "val"), "train or val", required=True),
        data_dir=Param(PATH, "where the source finds its data (not for generated)"),
        write_path=Param(PATH, "the .beton to write", required=True),
        write_mode=Param(
            one_of("raw", "jpg", "blocks", "smart", "proportion"), "how photos are stored", default="smart"
        ),
        max_resolution=Param(between(INT, 1, 65535), "longest side in pixels; null: unchanged"),
        compress_probability=Param(between(FLOAT, 0, 1), "proportion: share of JPEGs", default=0.5),
        jpeg_quality=Param(between(INT, 1, 100), "quality of the JPEGs", default=90),
        smart_threshold=Param(between(INT, 0, 10**12), "smart: JPEG for photos of more bytes than this; null: none"),
        rest=Param(one_of("raw", "blocks"), "proportion and smart: how all other photos are stored", default="raw"),
        exif=Param(one_of("ignore", "apply"), "orientation that a camera has noted (EXIF)", default="ignore"),
        restart_markers=Param(BOOL, "JPEGs have restart markers; 0: they have none", default=True),
        passthrough=Param(BOOL, "store plain JPEGs that need no downscaling unchanged", default=False),
        num_workers=Param(between(INT, 1, 1024), "threads", default=16),
        chunk_size=Param(between(INT, 1, 10**6), "photos that a thread takes at a time, at most", default=100),
        subset=Param(between(INT, -1, 10**8), "only the first so many photos; -1: all", default=-1),
        random_subset=Param(between(INT, 1, 10**8), "only so many photos, drawn by cfg.seed; null: all"),
        shuffle=Param(BOOL, "store photos in an order drawn by cfg.seed, not class by class", default=False),
        classes=Param(STR, "only these classes: names with commas, or a file with one a line; null: all"),
        empty_classes=Param(one_of("error", "keep"), "class folders without photos", default="error"),
        part=Param(STR, "only a part of the samples, e.g. 3/8; auto: of a Slurm array or torchrun; null: all"),
        seed=Param(
            between(INT, 0, 2**31 - 1), "for the JPEGs of proportion, cfg.random_subset and cfg.shuffle", default=0
        ),
        on_error=Param(one_of("raise", "skip"), "a photo that cannot be read: stop, or leave it out", default="raise"),
        resume=Param(BOOL, "resume an interrupted write; keep what that needs; skip a complete file", default=False),
    )
    return config


def main(argv: list[str]) -> None:
    """Read the settings, write, and report the result; or run the command that the first word names."""
    if argv and not argv[0].startswith("-"):
        from beton.inspecting import commands

        sys.exit(commands.main(argv, "write_dataset.py"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the temporary file is removed
    cfg = parse(declare(), argv).cfg
    if cfg.part is not None:
        cfg.part = part_of(cfg.part)
        cfg.write_path = str(part_path(cfg.write_path, cfg.part))
    report(cfg.write_path, write(cfg))


def write(cfg) -> dict:
    """Write the dataset with a progress bar; returns its card."""
    # Imported here, so that --help need not wait for NumPy and OpenCV
    from beton import progress
    from beton.sources import open_source
    from beton.sources.subset import OfClasses
    from beton.writing import writer
    from beton.writing.options import WriteOptions, make_fields

    source = open_source(
        cfg.dataset, cfg.data_dir, cfg.split, cfg.seed, cfg.subset if cfg.subset >= 0 else None, cfg.empty_classes
    )
    if getattr(source, "passed_over", None):
        kinds = ", ".join(f"{count} {ending or 'without ending'}" for ending, count in source.passed_over.most_common())
        print(f"=> passed over, since they are no photos of a known kind: {kinds}")
    if cfg.classes:
        source = OfClasses(source, names_in(cfg.classes))
    # Options of fields and of the write have the names of our parameters
    made = make_fields(source.fields, vars(cfg))
    options = WriteOptions(**{f.name: getattr(cfg, f.name) for f in fields(WriteOptions)})
    if cfg.write_mode == "smart" and cfg.smart_threshold is None:
        print("=> smart without cfg.smart_threshold stores no photo as JPEG, as in FFCV")
    notes: list[str] = []
    try:
        source = options.selected(source)
        with progress.bar(len(source), "images") as bar:
            return writer.write(
                source,
                cfg.write_path,
                made,
                options,
                {"name": cfg.dataset, "data_dir": cfg.data_dir, "split": cfg.split},
                bar.update,
                notes.append,
            )
    finally:
        for text in notes:  # not while the bar is displayed
            print(f"=> {one_line(text, NAMES)}")


def names_in(text: str) -> list[str]:
    """Names of classes: those in a file, a line each, or those in the text, with commas."""
    try:
        names = Path(text).read_text().splitlines() if os.path.isfile(text) else text.split(",")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {text} ({error})", "give a text file with a name on each line") from None
    return [name.strip() for name in names if name.strip()]


def report(path: str, card: dict) -> None:
    """Print what was written."""
    count, seconds = card["num_samples"], card["seconds"]
    print(f"=> {path}: {count} photos, {len(card['classes'] or ())} classes, {card['bytes'] / 1e6:.1f} MB")
    for mode, size in card.get("bytes_per_mode", {}).items():
        print(f"   {mode}: {card['samples_per_mode'][mode]} photos, {size / 1e6:.1f} MB")
    if card.get("passed_through"):
        print(f"   passed through: {card['passed_through']} of the JPEGs")
    rate = (count - card["resumed"]) / max(seconds, 0.001)
    print(f"   {seconds:.1f} s, {rate:.0f} images/s, SHA-256 {card['sha256'][:16]}...")
    reached = sum(count > 0 for count in card.get("samples_per_class", {}).values())
    if reached < len(card["classes"] or ()):
        print(f"   only {reached} of {len(card['classes'])} classes have photos (cfg.random_subset draws from all)")
    for note, count in (card.get("notes") or {}).items():
        print(f"   {note} in {count} photos" + (" (cfg.exif=apply turns them)" if note.endswith("ignored") else ""))
    if card["skipped"]:
        print(f"   left out: {len(card['skipped'])} photos that cannot be read (listed in {path}.json)")


# What messages of the library call our parameters
NAMES = {name: f"cfg.{name}" for _, name in declare().entries}
NAMES |= {"workers": "cfg.num_workers", "path": "cfg.write_path"}

if __name__ == "__main__":
    run(main, NAMES)
