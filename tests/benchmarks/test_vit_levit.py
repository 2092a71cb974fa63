"""benchmarks/vit_levit.py: of each class the same share of photos; a short run leaves reports and plots."""

import json
from pathlib import Path

import pytest

from benchmarks import vit_levit
from runtime.profiling import schema


def test_each_class_has_the_same_share(photo_folder, tmp_path):
    source = Path(photo_folder) / "train"
    vit_levit.choose(source, 30, tmp_path / "some")
    vit_levit.choose(source, 0, tmp_path / "all")
    for of_class in source.iterdir():
        files = sorted(path.name for path in of_class.iterdir())
        some = sorted(path.name for path in (tmp_path / "some" / of_class.name).iterdir())
        assert some == files[: round(len(files) * 30 / 120)]
        assert sorted(path.name for path in (tmp_path / "all" / of_class.name).iterdir()) == files


@pytest.mark.slow
def test_a_short_run_leaves_reports_and_plots(photo_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(vit_levit, "PHOTOS", {"levit_128s": (64, 32)})
    given = [f"--bench.photos={photo_folder}", f"--bench.folder={tmp_path}/out", "--bench.loaders=beton,torch"]
    vit_levit.main([*given, "--bench.seeds=1", "--bench.epochs=2"])
    report = json.loads((tmp_path / "out/levit_128s.json").read_text())
    assert schema.problems(report) == [] and str(tmp_path) not in json.dumps(report)
    assert [row["loader"] for row in report["rows"]] == ["beton", "torch"]
    for plot in ("runtime", "accuracy", "loss"):
        assert (tmp_path / "out" / f"levit_128s_{plot}_per_epoch.png").stat().st_size > 1000
