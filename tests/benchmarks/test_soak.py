"""benchmarks/soak.py: a short run, and what it says where something does not stay flat."""

import json
import threading

import pytest

from benchmarks import soak


@pytest.fixture
def soaked(betons, tmp_path, monkeypatch):
    """Run it with 12 loaders and stages that are soon compiled; returns (exit status, JSON)."""
    monkeypatch.setattr(soak, "_STAGES", ("rrc(24)|flip|normalize", "center(24)|normalize"))

    def run():
        settings = {
            "datasets": f"{betons['train']},{betons['val']}",
            "out": tmp_path / "soak.json",
            "max_batch_size": 32,
        }
        settings |= {"minutes": 10, "loaders": 12}
        argv = [f"--soak.{name}={value}" for name, value in settings.items()]
        status = 0
        try:
            soak.main(argv)
        except SystemExit as end:
            status = end.code
        return status, json.loads((tmp_path / "soak.json").read_text())

    return run


def test_a_short_run_is_recorded(soaked):
    _, facts = soaked()  # too short to be flat for sure: stages are compiled
    assert facts["epochs"] >= facts["loaders"] == 12
    assert facts["images"] > facts["batches"] > 0
    assert facts["quarters"]["threads"] == [threading.active_count()] * 4
    assert sum(facts["ends"].values()) == facts["epochs"]
    assert len(facts["looks"]) == facts["loaders"]


def test_a_loader_that_leaves_threads_is_not_flat(soaked, monkeypatch):
    waiting, open_pipeline = threading.Event(), soak.open_pipeline

    def leaking(*settings):
        threading.Thread(target=waiting.wait).start()
        return open_pipeline(*settings)

    monkeypatch.setattr(soak, "open_pipeline", leaking)
    try:
        status, facts = soaked()
    finally:
        waiting.set()
    assert status == 1 and facts["flat"] is False
    assert facts["quarters"]["threads"][3] > facts["quarters"]["threads"][1]


@pytest.mark.parametrize("name", ["memory_bytes", "threads", "files", "processes"])
def test_growth_is_reported(name):
    looks = [dict.fromkeys(("memory_bytes", "threads", "files", "processes"), 10**8) for _ in range(16)]
    assert soak.judge(looks)["flat"]
    assert not soak.judge([look | {name: look[name] + i * 10**7} for i, look in enumerate(looks)])["flat"]
