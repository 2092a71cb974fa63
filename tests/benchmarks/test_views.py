"""benchmarks/views.py and callables.py: a short run is recorded."""

import json

import pytest

from benchmarks import callables, views


@pytest.mark.slow
@pytest.mark.parametrize(("benchmark", "rows"), [(views, 6), (callables, 6)])
def test_a_short_run_is_recorded(photo_folder, tmp_path, benchmark, rows):
    given = [f"--bench.photos={photo_folder}/train", f"--bench.out={tmp_path}/out.json"]
    benchmark.main([*given, "--bench.rounds=1", "--bench.count=64"])
    found = json.loads((tmp_path / "out.json").read_text())["rows"]
    speeds = [row.get("photos_per_second") or row["images_per_second"] for row in found]
    assert len(found) == rows and all(speed["median"] > 0 for speed in speeds)
