"""Damaged betons by the thousand, in child processes: no crash, no hang, no wrong pixels that a checksum could tell."""

import json

import pytest

from beton.format import records
from tests.support.betons import write_good
from tests.support.damaged_betons import main
from tests.support.photos import make_folder
from tests.support.scripts import Forked

# JPEGs beside raw pixels, JPEGs beside blocks; of each one with its card and one without
MODES = {"raw": {"rest": "raw"}, "blocks": {"rest": "blocks"}, "jpg": {"compress_probability": 1}}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Good betons of 10 photos, kept below 200 kB by small pages."""
    folder = tmp_path_factory.mktemp("bases")
    make_folder(folder / "photos", [(32 + 3 * i, 64 - 3 * i) for i in range(10)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_SMALLEST_PAGE", 1 << 14)
        return [
            write_good(folder / f"{name}.beton", folder / "photos", write_mode="proportion", **cfg)
            for name, cfg in MODES.items()
        ]


def damaged_betons(bases, work, first: int, count: int) -> dict[str, int]:
    """The outcomes of `count` damaged betons in one process."""
    work.mkdir()
    process = Forked(work / "process", main, bases, work, first, count)
    try:
        assert process.end(900) == 0, f"at {(work / 'now').read_text()}: {process.errors}"
    finally:
        process.stop()
    return json.loads(process.output)


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
    memory = counts.pop("more MB")
    report(counts)
    assert total(counts, "") == EACH
    # The damage is neither too weak nor too strong
    for words in ("with card: refused", "without card: refused", "sample errors", "harmless"):
        assert total(counts, words) >= 10
    assert memory < 1000
