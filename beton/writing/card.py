"""The card of a file that has just been written."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from beton import system
from beton.files import partial_path
from beton.format.card import CARD_VERSION, encoded_checksums, encoded_names
from beton.format.fields.int import Int
from beton.format.records import VERSION
from beton.writing.layout import Layout
from beton.writing.options import WriteOptions, by_option, parameters, versions

_UNLESS_SET = ("part",)  # options that a card has only where they are given


def make_card(path: Path, layout: Layout, source, options: WriteOptions, about, outcome: dict, seconds: float) -> dict:
    """What the partial file of `path` says of itself (beton/format/card.py lists the keys).

    `outcome`: `identity`, `skipped`, `resumed`, the samples' `names` and the `part` (or None) of the write.
    """
    part = outcome.pop("part")
    partial, type_ids = partial_path(path), layout.type_ids
    return {
        "card_version": CARD_VERSION,
        "format_version": VERSION,
        "num_samples": layout.count,
        **_classes(layout, source),
        "fields": {name: field.type_names[type_ids[name]] for name, field in layout.fields.items()},
        **_facts(layout),
        "notes": dict(Counter(layout.notes.values())),
        "names": encoded_names(outcome.pop("names")),
        "parameters": _parameters(layout, source, options),
        "source": about,
        "seed": options.seed,
        **({} if part is None else {"part": part}),
        **outcome,
        "bytes": os.path.getsize(partial),
        "sha256": system.sha256(partial),
        "checksums": encoded_checksums(layout.crc32s[: layout.count], layout.index_crc32),
        "seconds": round(seconds, 3),
        "versions": versions(),
    }


def _parameters(layout: Layout, source, options: WriteOptions) -> dict[str, Any] | None:
    """The options of the fields and of the write; those of the files that a source of stored values takes over."""
    given = {name: value for name, value in vars(options).items() if name not in ("resume", *_UNLESS_SET)}
    given |= {name: getattr(options, name) for name in _UNLESS_SET if getattr(options, name) is not None}
    if hasattr(source, "parameters"):
        return source.parameters and {**given, **source.parameters}
    return {**parameters(layout.fields), **given}


def _classes(layout: Layout, source) -> dict[str, Any]:
    """Names of the classes and how many samples each has, where there are names."""
    if source.classes is None or not isinstance(layout.fields.get("label"), Int):
        return {"classes": source.classes}
    counts = Counter(layout.records["label"][: layout.count].tolist())
    return {
        "classes": list(source.classes),
        "class_to_idx": {name: i for i, name in enumerate(source.classes)},
        "samples_per_class": {name: counts.get(i, 0) for i, name in enumerate(source.classes)},
    }


def _facts(layout: Layout) -> dict[str, Any]:
    """What the fields say of their columns."""
    count = layout.count
    return by_option(
        {
            name: field.facts(
                layout.records[name][:count],
                layout.sizes[name][:count] if field.pointer is not None else None,
                layout.passed[name][:count] if field.pointer is not None else None,
            )
            for name, field in layout.fields.items()
        }
    )
