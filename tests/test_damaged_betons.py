"""Damaged betons by the thousand, in child processes: no crash, no hang, no wrong pixels that a checksum could tell."""

import json
import subprocess
import sys

import pytest
from conftest import ENVIRONMENT, ROOT
from writing import make_folder, write_good

from pipelines import encode

# JPEGs beside raw pixels, JPEGs beside blocks; of each one with its card and one without
MODES = {"raw": {"rest": "raw"}, "blocks": {"rest": "blocks"}, "jpg": {"compress_probability": 1}}

CHILD = """
import collections, json, os, resource, shutil, signal
from pathlib import Path
import numpy as np
import torch
from loading import task
from pipelines import beton, check
from pipelines.errors import DamagedSample, UserError
from pipelines.loaders import open_loader
from pipelines.payloads import Payloads

bases, work, first, count = [Path(name) for name in sys.argv[1].split(",")], Path(sys.argv[2]), *map(int, sys.argv[3:])
KINDS = ["cut", "header", "fields", "metadata", "table", "data", "spliced", "zeroed", "swapped"]

def spans(content, index):
    header = 24 + 1041 * len(index.fields)
    table = len(content) - 24 * index.num_samples
    record = beton.metadata_type(list(index.fields.values())).itemsize
    metadata = header + record * index.num_samples
    data = int(index.metadata["image"]["data_ptr"].min())
    return {"header": (0, 24), "fields": (24, header), "metadata": (header, metadata), "data": (data, table),
            "table": (table, len(content))}

def damage(rng, kind, content, index):
    content, places = bytearray(content), spans(content, index)
    if kind == "cut":
        return content[: rng.integers(len(content))]
    if kind == "spliced":
        other = bases[rng.integers(len(bases))].read_bytes()
        at = rng.integers(min(len(content), len(other)))
        return content[:at] + other[at:]
    if kind == "swapped":  # two payloads' addresses
        records = np.frombuffer(content, beton.metadata_type(list(index.fields.values())), index.num_samples,
                                places["metadata"][0])
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
    loader = open_loader("ffcv", task(path, stages="center(32)", batch_size=1, workers=1, shuffle=False, verify=verify))
    found, batches = [], iter(loader)
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
    loader = open_loader("ffcv", task(path, verify=verify, on_error="skip", **changes))
    batches = list(loader)
    loader.close()
    return batches, set(loader.left_out)

def same(one, other):
    return torch.equal(one[0], other[0]) and one[1] == other[1]

def outcome(path, card, true, clean):
    try:
        found, bad = images(path, card)
    except UserError as error:
        assert str(path) in str(error), error
        return "refused"
    batches, left_out = skipped(path, card)
    good = [(i[None], int(l)) for images, labels in batches for i, l in zip(images, labels)]
    count = beton.read_index(path).num_samples
    assert len(good) + len(left_out) == count and (bad is None or bad in left_out), (bad, left_out)
    photos = Payloads(path)
    named = {error.sample for error in check.damaged_samples(photos, True)}
    photos.close()
    assert left_out <= named, (left_out, named)
    if card:
        assert left_out == named
        pool = list(true)
        for image in good:  # in skip's order
            assert any(same(image, t) for t in pool), "wrong pixels or a wrong label under a checksum"
        assert all(same(f, t) for f, t in zip(found, true))
        return "sample errors" if left_out else "harmless"
    if left_out:
        return "sample errors"
    return "harmless" if all(same(f, t) for f, t in zip(found, true)) else "other pixels, no checksum"

sys.stderr = open(os.devnull, "w")  # the warnings of skip
clean = {}
for base in bases:
    clean[base] = base.read_bytes(), beton.read_index(base), images(base, True)[0]
counts = collections.Counter()
for seed in range(first, first + count):
    rng = np.random.default_rng(seed)
    base, kind, card = bases[seed % len(bases)], KINDS[seed // 2 % len(KINDS)], bool(rng.integers(2))
    content, index, true = clean[base]
    path = work / f"{seed}.beton"
    (work / "now").write_text(f"{seed} {kind}")
    signal.alarm(120)  # a hang; on a machine that does nothing else it is less than 0.1 s
    path.write_bytes(damage(rng, kind, content, index))
    if card:
        shutil.copy(beton.card_path(base), beton.card_path(path))
    try:
        result = outcome(path, card, true, clean)
    except BaseException as error:
        sys.stderr = sys.__stderr__
        raise AssertionError(f"seed {seed}, {kind}, card {card}: {error!r}") from error
    counts[f"{kind} {'with' if card else 'without'} card: {result}"] += 1
    path.unlink()
    beton.card_path(path).unlink(missing_ok=True)
signal.alarm(0)
counts["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(json.dumps(counts))
"""


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Good betons of 10 photos, kept below 200 kB by small pages."""
    folder = tmp_path_factory.mktemp("bases")
    make_folder(folder / "photos", [(32 + 3 * i, 64 - 3 * i) for i in range(10)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "_MIN_PAGE", 1 << 14)
        return [
            write_good(folder / f"{name}.beton", folder / "photos", write_mode="proportion", **cfg)
            for name, cfg in MODES.items()
        ]


def damaged_betons(bases, work, first: int, count: int) -> dict[str, int]:
    """The outcomes of `count` damaged betons in one process."""
    work.mkdir()
    start = f"import sys; sys.path[:0] = {[str(ROOT), str(ROOT / 'tests')]!r}\n"
    arguments = [",".join(map(str, bases)), str(work), str(first), str(count)]
    command = [sys.executable, "-X", "faulthandler", "-c", start + CHILD, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=ENVIRONMENT)
    assert done.returncode == 0, f"at {(work / 'now').read_text()}: {done.stderr}"
    return json.loads(done.stdout)


def report(counts: dict[str, int]) -> None:
    """Print the table: kinds of damage, with the card and without."""
    print()
    for name, count in sorted(counts.items()):
        print(f"{name}: {count}")


def total(counts: dict[str, int], words: str) -> int:
    return sum(count for name, count in counts.items() if words in name)


EACH = 500


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in range(1, 10))])
def test_five_hundred_damaged_betons(bases, tmp_path, part):
    """With --slow it is 5,000."""
    counts = damaged_betons(bases, tmp_path / "work", part * EACH, EACH)
    peak = counts.pop("peak MB")
    report(counts)
    assert total(counts, "") == EACH
    # The damage is neither too weak nor too strong
    for words in ("with card: refused", "without card: refused", "sample errors", "harmless"):
        assert total(counts, words) >= 10
    assert peak < 2000
