"""The card of a .beton: `<file>.json` beside it, which says what the file holds and how it was written.

Files work without one. Keys: card_version, format_version, num_samples, classes, class_to_idx, samples_per_class,
fields, samples_per_mode, bytes_per_mode, passed_through, parameters, source, seed, identity, skipped, resumed, bytes,
sha256, checksums (CRC-32 of each sample's payloads, and of the tables), names (of the samples' files, compressed),
notes (how many samples something was noted of), seconds, versions; part (which part of how many a file is,
beton/writing/options.py).
"""

import base64
import binascii
import json
import os
import zlib
from pathlib import Path

import numpy as np

from beton.errors import UserError

CARD_VERSION = 1
_AGAIN = "write the dataset again, or delete the card if it is of another file"


def card_path(path: str | Path) -> Path:
    """Where the card of a .beton lies."""
    return Path(f"{path}.json")


def card_text(card: dict) -> str:
    """A card as the text of its file."""
    return json.dumps(card, indent=1) + "\n"


def read_card(card: Path) -> dict | None:
    """What the card file `card` says, or None where there is no such file; raises UserError."""
    if not os.path.exists(card):
        return None
    if not os.path.isfile(card):  # reading a pipe would wait for ever
        raise UserError(f"{card} is not a file", "remove it or write the dataset again")
    try:
        content = json.loads(card.read_text())
    except OSError as error:
        raise UserError(f"cannot read {card} ({error.strerror or error})", "check the file and its disk") from None
    except ValueError as error:
        raise UserError(f"{card} is not valid JSON ({error})", "delete it or write the dataset again") from None
    if not isinstance(content, dict):
        raise UserError(f"{card} is not the card of a .beton", "delete it or write the dataset again")
    return content


def encoded_names(names: list[str] | None) -> str | None:
    """The entry `names` of a card: what each sample was called, in order; None where they have no names."""
    if names is None:
        return None
    return base64.b64encode(zlib.compress("\0".join(names).encode("utf-8", "surrogateescape"))).decode()


def decoded_names(card: dict, num_samples: int) -> list[str] | None:
    """What each sample was called, None where the card does not say. Raises UserError where that is damaged."""
    if not card.get("names"):
        return None
    try:
        names = zlib.decompress(base64.b64decode(card["names"], validate=True)).decode("utf-8", "surrogateescape")
        names = names.split("\0")
    except (TypeError, ValueError, zlib.error):
        names = []
    if len(names) != num_samples:
        raise UserError("the names of the samples in the card are damaged", "delete it or write the dataset again")
    return names


def encoded_checksums(samples: np.ndarray, index: int) -> dict:
    """The entry `checksums` of a card: CRC-32 of each sample (uint32) and of all tables."""
    return {"samples": base64.b64encode(samples.astype("<u4").tobytes()).decode(), "index": index}


def checked_checksums(card: dict, path: str, size: int, num_samples: int, index: int) -> np.ndarray | None:
    """The samples' checksums (uint32), None where the card has none.

    Raises UserError when it is not the card of the file `path` of `size` bytes whose tables have the CRC-32 `index`.
    """
    where = card_path(path)
    if card.get("bytes", size) != size:
        raise UserError(f"{path} has {size} bytes, and its card {where} is of a file of {card['bytes']}", _AGAIN)
    found = card.get("checksums")
    if found is None:
        return None
    try:
        samples = np.frombuffer(base64.b64decode(found["samples"], validate=True), "<u4")
        expected = int(found["index"])
    except (KeyError, TypeError, ValueError, binascii.Error):
        samples, expected = [], 0
    if len(samples) != num_samples:
        raise UserError(f"the checksums in {where} are damaged", "delete it or write the dataset again")
    if expected != index:
        what = f"the tables of {path} are damaged, or its card {where} is of another file (the checksum differs)"
        raise UserError(what, _AGAIN)
    return samples
