"""The profiler through the command line: real loaders on small data, and reports of finished runs."""

import functools
import json
import signal

import pytest

from beton.format.file import BetonFile
from runtime.profiling import schema
from runtime.profiling.process import measure_load
from tests.support.forking import forked_children
from tests.support.scripts import ROOT, Forked, forked, run_main

# To start a measuring process for real takes 5 s: test_a_measuring_process_is_started
quick = functools.partial(forked, "profile_loaders.py", hook=forked_children)
ROW_KEYS = {
    "loader", "protocol", "images_per_second", "cpu_seconds_per_image", "first_batch_seconds", "peak_memory_bytes",
}  # fmt: skip


@pytest.fixture(scope="module")
def report(photo_folder, betons, tmp_path_factory):
    """Folder of a load report."""
    out = tmp_path_factory.mktemp("report")
    done = quick(
        f"--profile.photos={photo_folder}/train", f"--profile.dataset={betons['train']}",
        "--profile.stages=center(48)", "--profile.loaders=beton,torch", "--profile.batch_size=16",
        "--profile.rounds=1", "--profile.seconds=0.2", f"--profile.out={out}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(out / "report.html") in done.stdout.splitlines()[-1]
    return out


def test_load_report_has_a_row_for_each_loader(report):
    found = json.loads((report / "report.json").read_text())
    assert schema.problems(found) == []
    assert found["stages"] == "center(48)"
    assert set(found["loader_parts"]) == {"beton alone"}
    assert found["data"]["photos"] == found["data"]["samples"] == 120
    assert found["machine"]["cores"] >= 1
    assert [row["loader"] for row in found["rows"]] == ["beton", "torch"]
    for row in found["rows"]:
        assert row.keys() >= ROW_KEYS
        assert row["protocol"] == "load"
        speed = row["images_per_second"]
        assert 0 < speed["min"] <= speed["median"] <= speed["max"]
        assert speed["n"] == 1
        assert row["first_batch_seconds"] > 0 and row["peak_memory_bytes"] > 0
    speeds = {row["loader"]: row["images_per_second"]["median"] for row in found["rows"]}
    for row in found["rows"]:
        assert row["ratio_to_torch"] == pytest.approx(speeds[row["loader"]] / speeds["torch"])


def test_load_report_has_its_files(report):
    names = {"report.json", "report.md", "report.html"}
    names |= {f"{plot}.{kind}" for plot in ("runtime_per_epoch", "images_per_second") for kind in ("png", "svg")}
    assert names <= {path.name for path in report.iterdir()}


def test_a_measuring_process_is_started(betons):
    task = {"dataset": str(betons["train"]), "stages": {"image": "center(8)"}, "batch_size": 60, "workers": 1}
    assert measure_load("beton", task, 0)["images"] == 120


def test_train_protocol_trains_with_each_loader_and_plots_it(photo_folder, betons, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "model: {arch: 'timm:test_resnet'}\ntraining: {batch_size: 24, epochs: 2}\nlr: {lr: 0.05, lr_peak_epoch: 1}\n"
        "resolution: {min_res: 32, max_res: 32}\nvalidation: {resolution: 32, batch_size: 16}\n"
    )
    out = tmp_path / "report"
    done = quick(
        "--profile.protocol=train", f"--profile.photos={photo_folder}/train",
        f"--profile.val_photos={photo_folder}/val", f"--profile.dataset={betons['train']}",
        f"--profile.val_dataset={betons['val']}", "--profile.loaders=torch,cached", f"--profile.config={recipe}",
        "--profile.rounds=1", f"--profile.out={out}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "report.json").read_text())
    assert [row["loader"] for row in found["rows"]] == ["torch", "cached"]
    for row in found["rows"]:
        assert row["protocol"] == "train"
        assert row.keys() >= ROW_KEYS
        assert 0 <= row["top_1"]["mean"] <= 1
        assert row["cpu_seconds_per_image"] > 0
    for plot in ("runtime_per_epoch", "accuracy_per_epoch", "loss_per_epoch", "breakdown"):
        assert (out / f"{plot}.png").stat().st_size > 1000
    assert schema.problems(found) == []
    assert found["breakdown"].keys() == {"torch", "cached"}
    assert found["verdict"]["headline"].startswith("torch: ")
    assert not list(out.rglob("*.pt"))  # checkpoints and weights of the runs
    for name in ("report.json", "report.md", "report.html", "epochs.csv"):  # no folder that was not given
        assert str(ROOT) not in (out / name).read_text()

    # The same report again, from the folders that the runs left
    runs = sorted(str(path.parent) for path in out.glob("*/run/log.jsonl"))
    again = tmp_path / "again"
    done = quick(f"--profile.runs={','.join(runs)}", f"--profile.out={again}")
    assert done.returncode == 0, done.stderr
    rows = {row["loader"]: row for row in json.loads((again / "report.json").read_text())["rows"]}
    for row in found["rows"]:
        assert rows[row["loader"]]["images_per_second"] == row["images_per_second"]


@pytest.mark.slow
def test_several_recipes_for_transformers_make_one_report(betons, tmp_path):
    for name in ("vit", "levit"):
        (tmp_path / f"{name}.yaml").write_text(
            "model: {arch: 'timm:test_vit', img_size: 32}\ndata: {resolution: 32}\nvalidation: {resolution: 32}\n"
            "training: {batch_size: 24, epochs: 1, optimizer: adamw}\nlr: {lr: 1e-3, warmup_epochs: 0}\n"
        )
    out = tmp_path / "report"
    done = quick(
        "--profile.protocol=train", "--profile.trainer=train_transformers.py",
        f"--profile.config={tmp_path}/vit.yaml,{tmp_path}/levit.yaml", "--profile.loaders=beton", "--profile.rounds=1",
        f"--profile.dataset={betons['train']}", f"--profile.val_dataset={betons['val']}", f"--profile.out={out}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads((out / "report.json").read_text())["rows"]
    assert [(row["loader"], row["protocol"]) for row in rows] == [("beton", "train vit"), ("beton", "train levit")]
    for plot in ("runtime_per_epoch", "accuracy_per_epoch", "loss_per_epoch"):
        assert (out / f"{plot}.png").stat().st_size > 1000
    assert "beton, levit" in (out / "runtime_per_epoch.svg").read_text()


def test_rounds_make_one_row_and_what_cannot_be_measured_is_skipped_by_name(betons, tmp_path):
    done = quick(
        f"--profile.dataset={betons['train']}", "--profile.stages=rrc(32)|flip|normalize",
        "--profile.loaders=torch,cached,beton", "--profile.batch_size=16", "--profile.rounds=2", "--profile.seconds=0",
        f"--profile.out={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = {row["loader"]: row for row in json.loads((tmp_path / "report.json").read_text())["rows"]}
    assert rows["torch"]["skipped"] == "profile.photos is not given"
    speed = rows["beton"]["images_per_second"]
    assert speed["n"] == 2
    assert 0 < speed["min"] <= speed["median"] <= speed["max"]
    assert "skipped torch (load): profile.photos is not given" in done.stdout
    assert "skipped cached (load): it loads nothing; it is the ceiling of protocol train" in done.stdout


def test_batches_on_the_device_are_measured_from_both_encodings_against_the_ceiling(photo_folder, betons, tmp_path):
    done = quick(
        "--profile.protocol=feed", f"--profile.photos={photo_folder}/train",
        f"--profile.dataset={betons['train']}", "--profile.stages=rrc(32)|flip|normalize", "--profile.batch_size=16",
        "--profile.loaders=torch,cached", "--profile.encodings=original,resized", "--profile.cold=1",
        "--profile.rounds=1", "--profile.seconds=0", f"--profile.out={tmp_path}/out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = {row["loader"]: row for row in json.loads((tmp_path / "out" / "report.json").read_text())["rows"]}
    assert list(rows) == ["torch", "torch@resized", "cached"]
    ceiling = rows["cached"]["images_per_second"]["median"]
    for name, row in rows.items():
        assert row["protocol"] == "feed" and row["cache"] == "cold" and row["others_cpu"] >= 0
        assert row["ratio_to_ceiling"] == pytest.approx(row["images_per_second"]["median"] / ceiling)
        assert row["start_seconds"] > 0 and row["warm_up_seconds"] >= row["first_batch_seconds"] > 0
        assert row.get("difference", 0) < 0.2, name
    # The JPEGs are those of the .beton, kept for the next time
    (made,) = (tmp_path / "out_cache").iterdir()
    with BetonFile(str(betons["train"])) as file:
        stored = {file.payload(index, "image") for index in range(len(file))}
        assert {path.read_bytes() for path in made.rglob("*.jpg")} == stored
        assert sorted(path.name for path in made.iterdir()) == file.classes


@pytest.mark.slow
def test_each_number_of_workers_is_compared_with_itself(betons, tmp_path):
    done = quick(
        f"--profile.dataset={betons['train']}", "--profile.stages=rrc(32)|flip|normalize",
        "--profile.loaders=beton", "--profile.workers_sweep=1,2", "--profile.batch_size=16", "--profile.rounds=1",
        "--profile.seconds=0", f"--profile.out={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert [row["protocol"] for row in rows] == ["load 1 workers", "load 2 workers"]


def test_ctrl_c_leaves_a_report_of_what_was_measured(betons, tmp_path):
    argv = [
        f"--profile.dataset={betons['train']}", "--profile.stages=rrc(32)|flip|normalize", "--profile.loaders=beton",
        "--profile.batch_size=16", "--profile.rounds=1000", "--profile.seconds=0", f"--profile.out={tmp_path}/out",
    ]  # fmt: skip
    process = Forked(tmp_path / "process", run_main, "profile_loaders.py", argv, forked_children)
    process.wait_for(lambda: "round 2 of 1000" in process.output)
    process.kill(signal.SIGINT)
    assert process.end() == 130, process.errors
    (row,) = json.loads((tmp_path / "out" / "report.json").read_text())["rows"]
    assert 2 <= row["images_per_second"]["n"] < 1000


def test_what_is_not_the_same_or_fails_is_not_timed_and_named(photo_folder, betons, tmp_path):
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted/blue_first.py").write_text(
        "import torch\nfrom pipelines.torch import Torch\nclass BlueFirst(Torch):\n    def read(self, *of_epoch):\n"
        "        for images, labels in super().read(*of_epoch):\n"
        "            yield images[:, [2, 1, 0]].to(memory_format=torch.channels_last), labels\nPIPELINE = BlueFirst\n"
    )
    (tmp_path / "planted/absent.py").write_text(
        "from pipelines.torch import Torch\nclass Absent(Torch):\n    needs = {'no_such_module': 'no-such-package'}\n"
        "PIPELINE = Absent\n"
    )
    done = quick(
        f"--profile.photos={photo_folder}/train", f"--profile.dataset={betons['train']}",
        "--profile.stages=rrc(32)|gray|normalize",
        "--profile.loaders=beton,planted.blue_first,planted.absent,torchvision_v2", "--profile.batch_size=16",
        "--profile.rounds=1", "--profile.seconds=0", f"--profile.out={tmp_path}/out",
        hook=functools.partial(forked_children, str(tmp_path)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = {row["loader"]: row for row in json.loads((tmp_path / "out" / "report.json").read_text())["rows"]}
    assert rows["beton"]["images_per_second"]["n"] == 1
    assert "channels are in the order blue, green, red" in rows["planted.blue_first"]["skipped"]
    assert "no-such-package not installed (pip install no-such-package" in rows["planted.absent"]["skipped"]
    assert "'torchvision_v2' has no stage 'gray'" in rows["torchvision_v2"]["skipped"]
