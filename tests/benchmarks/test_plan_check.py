"""benchmarks/plan_check.py: what was planned stands beside what was written and measured."""

import json

import pytest

from benchmarks import plan_check


@pytest.mark.slow
def test_a_short_run_is_recorded(photo_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(plan_check, "_BATCH", 16)  # of 120 photos
    given = [f"--bench.photos={photo_folder}/train", f"--bench.out={tmp_path}/out.json", "--bench.seconds=0"]
    plan_check.main([*given, "--bench.sizes=64,0", "--bench.modes=jpg", "--bench.rounds=2"])
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["what"] for row in rows] == ["jpg, 64", "jpg, as they are"]
    for row in rows:
        assert row["bytes_ratio"] == pytest.approx(1, abs=0.05) and row["speed_ratio"] > 0
