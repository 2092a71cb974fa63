"""docs/scaling.md is made of the measured files, and of other rates where they are given."""

import json

from tests.support.scripts import ROOT, assert_user_error, here

RATES = {"resnet50": 1000, "levit_128s": 1000, "vit_base_patch16_224": 1000}


def test_the_page_is_up_to_date():
    done = here("benchmarks/scaling.py", "--check")
    assert done.returncode == 0, done.stderr


def test_cores_and_bytes_are_those_of_the_measured_files(tmp_path):
    (tmp_path / "rates.json").write_text(json.dumps({"rates": RATES}))
    given = [f"--scale.gpu_rates={tmp_path}/rates.json", "--scale.megapixels=1", "--scale.jpg_bytes=0.25"]
    given.append(f"--scale.out={tmp_path}/page.md")
    done = here("benchmarks/scaling.py", *given)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads((ROOT / "docs/against_ffcv.json").read_text())["rows"]}
    page = (tmp_path / "page.md").read_text()
    line = next(line for line in page.splitlines() if line.startswith("| ResNet-50 | crop and flip | jpg |"))
    cores = float(line.split("|")[4])
    assert abs(cores - 1.15 * 1000 * rows["jpg"]["ours_cpu_seconds_per_image"]) < 0.001
    storage = next(line for line in page.splitlines() if line.startswith("| ImageNet-1k | 1,281,167 |"))
    gigabytes = (
        1_281_167 * 1e6 * 0.25 * rows["jpg_bytes"]["ours"]["median"] / rows["jpg_bytes"]["theirs"]["median"] / 1e9
    )
    assert abs(float(storage.split("|")[3]) - gigabytes) < 1
    epoch = next(line for line in page.splitlines() if line.startswith("| ImageNet-21k | ViT-B/16 | 8 x 8 GPUs |"))
    assert abs(float(epoch.split("|")[5]) - 14_197_122 / 64_000 / 60) < 0.01


def test_rates_that_cannot_be_used(tmp_path):
    (tmp_path / "rates.json").write_text(json.dumps({"rates": {"resnet50": 1}}))
    given, out = f"--scale.gpu_rates={tmp_path}/rates.json", f"--scale.out={tmp_path}/page.md"
    assert_user_error(here("benchmarks/scaling.py", out, given), "no rate of levit_128s")
    assert_user_error(here("benchmarks/scaling.py", out, "--scale.gpu_rates=missing.json"), "missing.json")
