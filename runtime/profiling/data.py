"""What photos a report is of, so that reports of other photos are not compared."""

import hashlib
import os
from pathlib import Path

from beton.format.card import card_path, read_card
from beton.format.file import BetonFile


def identity(photos: str | None, dataset: str | None) -> dict:
    """Facts that are equal for equal data, wherever it lies: of a photo folder the names and sizes of its files, of a
    .beton its length, its bytes and (from its card) the names and labels of what was written."""
    found: dict = {}
    if photos and os.path.isdir(photos):
        digest, count = hashlib.sha256(), 0
        for path in sorted(path for path in Path(photos).rglob("*") if path.is_file()):
            digest.update(f"{path.relative_to(photos)}\0{path.stat().st_size}\0".encode("utf-8", "surrogateescape"))
            count += 1
        found |= {"photos": count, "photos_digest": digest.hexdigest()[:16]}
    if dataset and os.path.isfile(dataset):
        with BetonFile(dataset) as file:
            found |= {"samples": len(file), "dataset_bytes": os.path.getsize(dataset)}
        card = read_card(card_path(dataset)) or {}
        found["source_digest"] = (card.get("identity") or {}).get("names and labels")
        found["dataset_sha256"] = (card.get("sha256") or "")[:16] or None
    return found
