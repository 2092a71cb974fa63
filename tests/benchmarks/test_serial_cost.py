"""benchmarks/serial_cost.py: a short run is recorded, and leaves the kernels as they were."""

import json

import numpy as np

import beton
from benchmarks import serial_cost
from tests.support.betons import write_beton


def test_a_short_run_is_recorded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(serial_cost, "_SAMPLES", 1200)
    serial_cost.main([f"--bench.out={tmp_path}/out.json", "--bench.rounds=1", "--bench.seconds=0"])
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["side"] for row in rows] == [32, 64, 160, 224]
    assert all(row["images_per_second"]["median"] > 0 for row in rows)
    path = write_beton(tmp_path / "a.beton", [np.full((8, 8, 3), 99, np.uint8)])
    with beton.Loader(path, 1, image="center(8, 1)") as loader:
        assert (next(iter(loader)).image == 99).all()


def test_costs_of_an_image_and_of_a_batch_are_told_apart():
    figures = {
        (32, batch): [{"images_per_second": 1.0, "cpu_seconds_per_image": 3e-6 + 500e-6 / batch}] for batch in (64, 512)
    }
    found = serial_cost.row(32, figures)
    assert abs(found["cpu_us_per_image"] - 3) < 1e-6 and abs(found["cpu_us_per_batch"] - 500) < 1e-6
