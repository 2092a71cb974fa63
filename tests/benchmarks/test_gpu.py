"""benchmarks/gpu.py: its JSON, with runs that only say how they ended; and, slowly, all of it on the CPU."""

import json

import pytest
import torch

from benchmarks import gpu
from beton.errors import UserError
from tests.support.scripts import run_script

RATES = {"jpg": 500, "raw": 960, "blocks": 940}


@pytest.fixture
def runs(monkeypatch):
    """Processes that are not started: a run has the rate of its file, or ends as one that cannot be done here."""
    commands = []

    def call(command, minutes):
        words = list(map(str, command))
        commands.append(words)
        given = dict(word[2:].split("=", 1) for word in words if word.startswith("--") and "=" in word)
        if "pytest" in words:
            return 1, "FAILED tests/gpu/test_x.py::test_y - no\n1 failed, 9 passed in 3 s\n", ""
        if "logging.folder" not in given:
            return 0, "", ""
        if given["data.loader"] == "torch" or "faster_vit" in words[2]:
            return 2, "", "a warning\nerror: it is not there; install it\n"
        if "vit_b_16" in words[2]:
            return 1, "", "Traceback\nZeroDivisionError\n"
        rate = (
            1000
            if given["data.loader"] == "cached"
            else RATES[given["data.train_dataset"].split("/")[-1].split("_")[0]]
        )
        line = {"images_per_second": rate, "train_time": 2, "wait_time": 1, "train_loss": 3.0, "precision": "fp16"}
        folder = gpu.Path(given["logging.folder"]) / "run"
        folder.mkdir()
        (folder / "params.json").write_text("{}")
        lines = [{"epoch": 0, **line, "images_per_second": 1}, {"epoch": 1, **line, "gpu_memory_bytes": 7}]
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return 0, "", ""

    monkeypatch.setattr(gpu, "call", call)
    monkeypatch.setattr(gpu.pipelines, "missing", lambda name: ["ffcv==1.0.2"] if name == "ffcv" else [])
    return commands


def test_its_json_compares_with_the_ceiling_and_names_what_is_not_there(runs, tmp_path, photo_folder):
    out = tmp_path / "gpu.json"
    gpu.main([f"--bench.out={out}", "--bench.device=cpu", f"--bench.photos={photo_folder}", "--bench.steps=200"])
    found = json.loads(out.read_text())
    assert found["complete"] and found["seconds"] >= 0
    assert found["tests"] == [
        {"status": 1, "summary": "1 failed, 9 passed in 3 s", "failed": ["FAILED tests/gpu/test_x.py::test_y - no"]}
    ]
    rows = {(row["model"], row["loader"]): row for row in found["loaders"]}
    assert len(rows) == 12
    for model in ("resnet18", "levit_128s"):
        assert rows[model, "cached"]["share_of_cached"] == 1
        assert rows[model, "beton, jpg"]["share_of_cached"] == 0.5 and not rows[model, "beton, jpg"]["goal_reached"]
        assert rows[model, "beton, raw"]["goal_reached"] and not rows[model, "beton, blocks"]["goal_reached"]
        assert rows[model, "ffcv, jpg"] == {
            "model": model,
            "loader": "ffcv, jpg",
            "skipped": "ffcv==1.0.2 not installed",
        }
        assert rows[model, "torch"]["skipped"] == "it is not there; install it"
        assert rows[model, "cached"]["wait_share"] == 0.5 and rows[model, "cached"]["gpu_memory_bytes"] == 7
    more = {row["model"]: row for row in found["models"]}
    assert more["resnet50"]["images_per_second"]["median"] == 500 and more["resnet50"]["steps"] >= 200
    assert "skipped" in more["faster_vit_0"] and more["vit_b_16"]["failed"] == "ZeroDivisionError"
    assert "deit3_small" in more


def test_without_a_gpu_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        UserError, match="there is no GPU; run it where there is one, or rehearse with bench.device=cpu"
    ):
        gpu.main([f"--bench.out={tmp_path}/a.json"])
    with pytest.raises(UserError, match="unknown part 'x'"):
        gpu.main([f"--bench.out={tmp_path}/a.json", "--bench.parts=tests,x"])


@pytest.mark.slow
def test_a_rehearsal_on_the_cpu(tmp_path):
    small = ["--bench.count=16", "--bench.batch_size=8", "--bench.epochs=2", "--bench.models_batch_size=8"]
    small += ["--bench.steps=2", "--bench.max_resolution=64", "--bench.tests=tests/gpu/test_batches.py -k pixels"]
    done = run_script("benchmarks/gpu.py", f"--bench.out={tmp_path}/a.json", "--bench.device=cpu", *small, timeout=1200)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["complete"] and found["tests"][0]["status"] == 0
    assert not [row for part in ("loaders", "models") for row in found[part] if "failed" in row]
