"""What photos a report is of, so that reports of other photos are not compared."""

import hashlib
import os
from collections.abc import Iterator

from beton.format.card import card_path, read_card
from beton.format.file import BetonFile


def identity(photos: str | None, dataset: str | None) -> dict:
    """Facts that are equal for equal data, wherever it lies: of a photo folder the names and sizes of its files, of a
    .beton its length, its bytes and (from its card) the names and labels of what was written."""
    found: dict = {}
    if photos and os.path.isdir(photos):
        lines = sorted(_files(photos, ""))
        digest = hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape"))
        found |= {"photos": len(lines), "photos_digest": digest.hexdigest()[:16]}
    if dataset and os.path.isfile(dataset):
        with BetonFile(dataset) as file:
            found |= {"samples": len(file), "dataset_bytes": os.path.getsize(dataset)}
        card = read_card(card_path(dataset)) or {}
        found["source_digest"] = (card.get("identity") or {}).get("names and labels")
        found["dataset_sha256"] = (card.get("sha256") or "")[:16] or None
    return found


def _files(folder: str, prefix: str) -> Iterator[str]:
    """A line for each file in a folder and below: its path from there on, and its bytes."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _files(entry.path, f"{prefix}{entry.name}/")
            else:
                yield f"{prefix}{entry.name}\0{entry.stat().st_size}\0"
