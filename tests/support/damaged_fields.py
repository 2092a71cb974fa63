"""Damage at random to betons of drawn fields: for a process of its own, which may die of it."""

import collections
import json
import os
import random
import shutil
import signal
import sys
from pathlib import Path

import numpy as np

import beton
from beton.errors import DamagedSample, UserError
from beton.format.card import card_path
from beton.format.records import HEADER
from beton.inspecting import check
from tests.support import fields

KINDS = ["cut", "header", "descriptors", "tables", "payloads", "payloads", "zeroed", "end"]


def damage(draw: random.Random, content: bytearray, names: int, payloads: tuple[int, int]) -> str:
    """Change the content of a file; returns how."""
    kind = draw.choice(KINDS)
    if kind == "cut":
        del content[draw.randrange(len(content)) :]
        return kind
    head = 24 + 1041 * names
    places = {"header": (0, 24), "descriptors": (24, head), "end": (max(head, len(content) - 400), len(content))}
    low, high = (places | {"payloads": payloads}).get(kind, (head, len(content)))
    if kind == "descriptors":  # the type, the name, or where the arguments are
        low += 1041 * draw.randrange(names)
        high = low + 330
    if kind == "zeroed":
        start, count = draw.randrange(low, high), 2 ** draw.randint(0, 9)
        content[start : start + count] = bytes(len(content[start : start + count]))
        return kind
    for _ in range(2 ** draw.randint(0, 4)):
        content[draw.randrange(low, high)] ^= 1 << draw.randrange(8)
    return kind


def outcome(path: Path, card: bool, drawn: dict, samples: list[dict]) -> str:
    try:
        with beton.open(path) as file:
            bad = {error.sample for error in check.damaged_samples(file, True)}
            if card:
                for i in set(range(len(file))) - bad:
                    assert all(map(fields.same, file[i], samples[i].values())), "a wrong value under a checksum"
        given = {"verify": card, "workers": 1, "shuffle": False, "on_error": "skip", **fields.stages(drawn)}
        with beton.Loader(path, 4, **given) as loader:
            found = [row for batch in loader for row in fields.rows(batch)]
            left_out = set(loader.left_out)
    except UserError as error:
        assert str(path) in str(error) or isinstance(error, DamagedSample) or not card, error
        return "refused"
    assert left_out <= bad, (left_out, bad)
    if card:
        good = [sample for i, sample in enumerate(samples) if i not in left_out]
        assert left_out == bad and len(good) == len(found)
        for row in found:  # in the order of skip
            assert any(all(fields.same(row[n], sample[n]) for n in row) for sample in good), "a wrong value in a batch"
    return "sample errors" if left_out else "harmless" if card else "no checksum"


def main(work: Path, first: int, count: int) -> None:
    """Print how often each outcome was that of `count` damaged betons, as JSON; raise where one is wrong."""
    stderr, sys.stderr = sys.stderr, open(os.devnull, "w")  # noqa: SIM115  the warnings of skip
    counts, path, bad = collections.Counter(), work / "a.beton", work / "bad.beton"
    for seed in range(first, first + count):
        draw = random.Random(seed)
        (work / "now").write_text(str(seed))
        signal.alarm(120)  # a hang
        if seed == first or seed % 5 == 0:
            drawn, samples = fields.field_set(draw)
            beton.write(samples, path, fields=drawn, workers=1)
            end = int(np.fromfile(path, HEADER, 1)["alloc_table_ptr"][0])
            with beton.open(path) as file:
                starts = [column.addresses.min() for column in file.columns.values() if column.sizes is not None]
            start = int(min(starts, default=end - 1))
        content, card = bytearray(path.read_bytes()), bool(draw.getrandbits(1))
        kind = damage(draw, content, len(drawn), (start, max(start + 1, end)))
        bad.write_bytes(content)
        card_path(bad).unlink(missing_ok=True)
        if card:
            shutil.copy(card_path(path), card_path(bad))
        try:
            result = outcome(bad, card, drawn, samples)
        except BaseException as error:
            sys.stderr = stderr
            raise AssertionError(f"seed {seed}, {kind}, card {card}: {error!r}") from error
        counts[f"{kind} {'with' if card else 'without'} card: {result}"] += 1
    signal.alarm(0)
    print(json.dumps(counts), flush=True)
