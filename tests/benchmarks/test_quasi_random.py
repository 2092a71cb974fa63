"""The benchmarks of files larger than memory: small runs are recorded, and find what they are there to find."""

import json

import numpy as np
import pytest

from benchmarks import quasi_random
from beton.errors import UserError
from tests.support.betons import write_beton
from tests.support.hooks import small_pages
from tests.support.memory import drop, resident_pages
from tests.support.scripts import forked, options


def test_a_small_simulation_is_recorded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quasi_random, "_SHARES", (0.3, 0.1))
    given = {"samples": 60_000, "classes": 200, "kilobytes": 400, "ranks": 4, "machines": 2, "batch_size": 8}
    quasi_random.main([f"--bench.{name}={value}" for name, value in given.items()] + [f"--bench.out={tmp_path}/a.json"])
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert [(row["file"], row["share"]) for row in rows] == [
        (file, share) for share in (0.3, 0.1) for file in ("sorted", "shuffled")
    ]
    for row in rows:
        assert row["peak_bytes_of_rank"] <= row["cache_bytes_of_rank"]
        assert 1 <= row["pages_read"] < 1.1
        # A file that is shuffled is mixed as at random, and one that is not the better, the more of it is in memory
        assert row["file"] == "sorted" or abs(row["classes"] - 1) < 0.05
    assert 1.05 > rows[0]["classes"] > rows[2]["classes"]
    assert rows[0]["dispersion"] < rows[2]["dispersion"]
    with pytest.raises(UserError, match="4 ranks are not shared by 3 machines"):
        quasi_random.main(["--bench.ranks=4", "--bench.machines=3", f"--bench.out={tmp_path}/a.json"])


def test_payloads_lie_one_after_the_other_and_none_crosses_a_page():
    sizes = np.random.default_rng(0).integers(1, 8 << 20, 500)
    starts = quasi_random.placed(sizes)
    assert (starts[1:] >= (starts + sizes)[:-1]).all()
    assert (starts // (8 << 20) == (starts + sizes - 1) // (8 << 20)).all()
    assert (np.diff(starts // (8 << 20)) <= 1).all()


def test_ranks_of_the_speed_benchmark_read_each_sample_once(numbered, tmp_path):
    """Of pages of 64 KB, as the file is small."""
    drop(path := write_beton(tmp_path / "a.beton", [np.zeros((200, 200, 3), np.uint8)]))
    if resident_pages(path).any():
        pytest.skip("this file system keeps its files in memory")
    given = {"photos": numbered["folder"], "work": tmp_path, "out": tmp_path / "a.json", "gb": 0.012}
    given |= {"ranks": 2, "rounds": 1, "batch_size": 2}
    done = forked("benchmarks/cached_ranks.py", *options({f"bench.{n}": v for n, v in given.items()}), hook=small_pages)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "a.json").read_text())
    rows = {row["arm"]: row for row in found["rows"]}
    assert list(rows) == ["random", "quasi_random", "quasi_random_cold"]
    assert all(row["images_per_second"]["median"] > 0 for row in rows.values())
    # Its tables too, and what the system reads ahead of them, are no small part of so small a file
    assert rows["quasi_random_cold"]["share_resident"]["max"] < 0.5
    assert not list(tmp_path.glob("cached_ranks*"))
