"""benchmarks/ceiling.py: the bytes of a crop are those of the photos, and a short run is recorded."""

import json

import numpy as np
import pytest

from benchmarks import ceiling
from tests.support.betons import write_beton
from tests.support.forking import forked_children
from tests.support.photos import draw
from tests.support.scripts import forked


def test_a_short_run_is_recorded(tmp_path):
    photos = [draw(number, 320, 300) for number in range(130)]
    path = write_beton(tmp_path / "jpg.beton", photos, "jpg")
    given = [f"--bench.datasets={path}", f"--bench.out={tmp_path}/out.json"]
    given += ["--bench.rounds=1", "--bench.seconds=0"]
    done = forked("benchmarks/ceiling.py", *given, hook=forked_children)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [(row["dataset"], row["dtype"]) for row in rows] == [("jpg.beton", "float32"), ("jpg.beton", "uint8")]
    for row in rows:
        assert row["share"] == pytest.approx(row["images_per_second"]["median"] / row["ceiling"])
        assert row["bytes_out"] == 3 * 224 * 224 * (4 if row["dtype"] == "float32" else 1)
        assert row["entropy_decoded_per_second"]["median"] > 0


def test_the_bytes_of_a_crop(tmp_path):
    """rrc draws between 8 and 100 % of a photo's area, evenly, and of its rows about the root of that."""
    path = write_beton(tmp_path / "a.beton", [np.zeros((100, 100, 3), np.uint8)] * 2000)
    assert not ceiling.has_jpegs(path)
    stored, rows = ceiling.crops(path)
    assert stored / 30_000 == pytest.approx(0.5, abs=0.04)
    assert rows == pytest.approx(0.68, abs=0.03)
