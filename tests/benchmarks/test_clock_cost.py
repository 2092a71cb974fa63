"""benchmarks/clock_cost.py: a short run is recorded, and its interval is the one of a textbook."""

import json

import pytest

from benchmarks import clock_cost


def test_a_short_run_is_recorded(betons, tmp_path):
    given = [f"--bench.dataset={betons['train']}", f"--bench.out={tmp_path}/out.json", "--bench.stages=rrc(32)|flip"]
    clock_cost.main([*given, "--bench.rounds=2", "--bench.seconds=0", "--bench.batch_size=16"])
    loader, trainer = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert loader["low"] <= loader["overhead"] <= loader["high"] and loader["n"] == 2
    assert loader["cpu_ms_per_image"]["median"] > 0 and trainer["us_per_batch"] > 0


def test_overhead_is_of_the_pairs():
    # A drift of the machine that meets both of a pair is not in the interval
    found = clock_cost.overhead([1.0, 2.0, 4.0], [1.01, 2.02, 4.04])
    assert (found["overhead"], found["low"], found["high"]) == pytest.approx((0.01, 0.01, 0.01))
    found = clock_cost.overhead([1.0] * 4, [0.98, 1.0, 1.0, 1.02])  # sd of the logs 0.0163, t(3) = 3.182
    assert (found["low"], found["high"]) == pytest.approx((-0.0259, 0.0259), abs=5e-4)
