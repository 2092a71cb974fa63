"""Damage to betons at random, and what our loader makes of them: for a process of its own, which may die of it."""

import collections
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import torch

from beton.errors import DamagedSample, UserError
from beton.format.card import card_path
from beton.format.file import BetonFile
from beton.format.records import metadata_record
from beton.inspecting import check
from pipelines import open_pipeline
from tests.support.loaders import task

KINDS = ["cut", "header", "fields", "metadata", "table", "data", "spliced", "zeroed", "swapped"]


def peak_bytes() -> int:
    """The most memory that this process has had; of ru_maxrss a part may be that of the process it was forked from."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


def record_of(index):
    return metadata_record([column.field.record for column in index.columns.values()])


def spans(content, index):
    header = 24 + 1041 * len(index.columns)
    table = len(content) - 24 * index.num_samples
    record = record_of(index).itemsize
    metadata = header + record * index.num_samples
    data = int(index.columns["image"].addresses.min())
    return {
        "header": (0, 24),
        "fields": (24, header),
        "metadata": (header, metadata),
        "data": (data, table),
        "table": (table, len(content)),
    }


def damage(rng, kind, content, index, bases):
    content, places = bytearray(content), spans(content, index)
    if kind == "cut":
        return content[: rng.integers(len(content))]
    if kind == "spliced":
        other = bases[rng.integers(len(bases))].read_bytes()
        at = rng.integers(min(len(content), len(other)))
        return content[:at] + other[at:]
    if kind == "swapped":  # two payloads' addresses
        records = np.frombuffer(content, record_of(index), index.num_samples, places["metadata"][0])
        a, b = rng.permutation(index.num_samples)[:2]
        if rng.integers(2):
            for name in ("data_ptr", "mode", "width", "height"):
                records["f0"][name][[a, b]] = records["f0"][name][[b, a]]
        else:
            records["f1"][[a, b]] = records["f1"][[b, a]]
        return content
    low, high = places[str(rng.choice(["metadata", "table", "data"]))] if kind == "zeroed" else places[kind]
    if kind == "zeroed":
        at = rng.integers(low, high)
        end = min(high, at + 2 ** rng.integers(0, 13))
        content[at:end] = bytes(end - at)
        return content
    for _ in range(2 ** rng.integers(0, 4)):
        content[rng.integers(low, high)] ^= 1 << rng.integers(8)
    return content


def images(path, verify):
    changes = {"stages": "center(32)", "batch_size": 1, "workers": 1, "shuffle": False}
    loader = open_pipeline("beton", task(path, verify=verify, **changes))
    found, batches = [], loader.batches(0)
    try:
        for sample in range(loader.num_samples):
            try:
                pixels, label = next(batches)
                found.append((pixels.clone(), int(label)))
            except DamagedSample as error:
                assert error.sample == sample, (error.sample, sample)
                return found, sample
        return found, None
    finally:
        loader.close()


def skipped(path, verify):
    changes = {"stages": "center(32)", "batch_size": 4, "workers": 2, "drop_last": False, "shuffle": False}
    loader = open_pipeline("beton", task(path, verify=verify, on_error="skip", **changes))
    batches = list(loader.batches(0))
    loader.close()
    return batches, set(loader.left_out)


def same(one, other):
    return torch.equal(one[0], other[0]) and one[1] == other[1]


def outcome(path, card, true):
    try:
        found, bad = images(path, card)
    except UserError as error:
        assert str(path) in str(error), error
        return "refused"
    batches, left_out = skipped(path, card)
    good = [(i[None], int(label)) for images, labels in batches for i, label in zip(images, labels, strict=True)]
    with BetonFile(path) as file:
        count = len(file)
        named = {error.sample for error in check.damaged_samples(file, True)}
    assert len(good) + len(left_out) == count and (bad is None or bad in left_out), (bad, left_out)
    assert left_out <= named, (left_out, named)
    if card:
        assert left_out == named
        pool = list(true)
        for image in good:  # in skip's order
            assert any(same(image, t) for t in pool), "wrong pixels or a wrong label under a checksum"
        assert all(same(f, t) for f, t in zip(found, true, strict=False))
        return "sample errors" if left_out else "harmless"
    if left_out:
        return "sample errors"
    return "harmless" if all(same(f, t) for f, t in zip(found, true, strict=False)) else "other pixels, no checksum"


def main(bases: list[Path], work: Path, first: int, count: int) -> None:
    """Print how often each outcome was that of `count` damaged betons, as JSON; raise where one is wrong."""
    stderr, sys.stderr = sys.stderr, open(os.devnull, "w")  # noqa: SIM115  the warnings of skip
    clean = {base: (base.read_bytes(), BetonFile(base), images(base, True)[0]) for base in bases}
    memory = peak_bytes()
    counts = collections.Counter()
    for seed in range(first, first + count):
        rng = np.random.default_rng(seed)
        base, kind, card = bases[seed % len(bases)], KINDS[seed // 2 % len(KINDS)], bool(rng.integers(2))
        content, index, true = clean[base]
        path = work / f"{seed}.beton"
        (work / "now").write_text(f"{seed} {kind}")
        signal.alarm(120)  # a hang; on a machine that does nothing else it is less than 0.1 s
        path.write_bytes(damage(rng, kind, content, index, bases))
        if card:
            shutil.copy(card_path(base), card_path(path))
        try:
            result = outcome(path, card, true)
        except BaseException as error:
            sys.stderr = stderr
            raise AssertionError(f"seed {seed}, {kind}, card {card}: {error!r}") from error
        counts[f"{kind} {'with' if card else 'without'} card: {result}"] += 1
        path.unlink()
        card_path(path).unlink(missing_ok=True)
    signal.alarm(0)
    counts["more MB"] = (peak_bytes() - memory) >> 20
    print(json.dumps(counts), flush=True)
