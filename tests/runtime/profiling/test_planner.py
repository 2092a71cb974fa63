"""The planner: what it says of bytes is what a write makes, and it recommends what its own table calls for."""

import json
import os
import shlex
import subprocess

import pytest

from runtime.profiling import planner
from runtime.profiling.planner import Machine, Option, Sampled
from tests.support.betons import write_good
from tests.support.scripts import ENVIRONMENT, ROOT, assert_user_error, here


@pytest.fixture(scope="module")
def plan(photo_folder, tmp_path_factory):
    """What `plan` has written for the generated photos, of which it wrote and read a third."""
    out = tmp_path_factory.mktemp("plan")
    done = here(
        "profile_loaders.py", "plan", f"--plan.photos={photo_folder}", "--plan.sizes=64,0", "--plan.sample=40",
        "--plan.stages=rrc(32)|normalize", "--plan.seconds=0", "--plan.rate=10", f"--plan.out={out}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (
        "Write them as jpg, as large as they are" in done.stdout
    )  # all are fast enough: the largest, the fewest bytes
    return json.loads((out / "plan.json").read_text()) | {"page": (out / "plan.html").read_text()}


@pytest.mark.parametrize("mode", ["jpg", "blocks", "raw"])
@pytest.mark.parametrize("size", [64, None])
def test_bytes_are_those_of_the_file_that_is_written(plan, photo_folder, tmp_path, mode, size):
    (told,) = [each for each in plan["options"] if (each["mode"], each["size"]) == (mode, size)]
    more = {} if size is None else {"max_resolution": size}
    path = write_good(tmp_path / "all.beton", photo_folder / "train", write_mode=mode, **more)
    assert told["bytes"] == pytest.approx(os.path.getsize(path), rel=0.05)
    assert told["images_per_second"] > 0 and told["write_seconds"] > 0
    assert told["epoch_seconds"] == pytest.approx(12.0) and told["limit"] == "model"


def test_the_recommended_line_writes_what_is_recommended(plan, tmp_path):
    line = plan["line"].replace("WRITE_DIR=betons", f"WRITE_DIR={shlex.quote(str(tmp_path))}")
    assert line.startswith("IMAGENET_DIR=") and "./write_imagenet.sh 65535 1.0 90" in line
    python = {"PYTHON": os.sys.executable}
    done = subprocess.run(line, shell=True, cwd=ROOT, env={**ENVIRONMENT, **python}, capture_output=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert os.path.getsize(tmp_path / "train_65535_1.0_90.beton") == pytest.approx(
        plan["recommended"]["bytes"], rel=0.05
    )


def made(mode, size, gigabytes, rate, fits=True):
    return Option(mode, size, 90, gigabytes * 1e9, rate, 100.0, fits, 1e6 / rate, "loader")


TABLE = [
    made("jpg", 256, 20, 3000), made("blocks", 256, 40, 9000), made("raw", 256, 160, 9500),
    made("jpg", 500, 60, 1000), made("blocks", 500, 115, 6000), made("raw", 500, 460, 7000, fits=False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rate", "mode", "size"),
    [(500, "jpg", 500), (2000, "blocks", 500), (6500, "blocks", 256), (20000, "raw", 256), (None, "blocks", 500)],
)
def test_recommended_is_the_largest_that_is_fast_enough_and_fits(rate, mode, size):
    best = planner.recommended(TABLE, rate)
    assert (best.mode, best.size) == (mode, size)


class Photos:
    count = 1_000_000


@pytest.mark.parametrize(
    ("machine", "rate", "seconds", "limit", "fits"),
    [
        (Machine(96, 768e9, None), 20_000, 50.0, "model", True),
        (Machine(4, 768e9, None), 20_000, 1e6 / 2000, "loader", True),
        (Machine(96, 50e9, 1e8), None, 1000.0, "disk", False),
        (Machine(96, 50e9, None), None, 1e6 / 48_000, "loader", False),
    ],
)
def test_a_machine_that_is_not_at_hand(machine, rate, seconds, limit, fits):
    """100 kB an image and 500 images per second of a core: 100 GB."""
    found = planner.option(Photos, Sampled(1e5, 0.01, 777.0, 500.0), "jpg", 400, 90, machine, rate)
    assert found.epoch_seconds == pytest.approx(seconds) and (found.limit, found.fits) == (limit, fits)
    assert found.write_seconds == pytest.approx(1e4 / machine.cores)


def test_other_modes_are_measured_for_a_beton(betons):
    found = planner.alternatives(str(betons["train"]), "rrc(32)|normalize", count=16, seconds=0.0)
    assert [each.text.partition(" (")[0] for each in found] == [
        "write it as blocks", "write it as raw", "write it with at most 96 px",
    ]  # fmt: skip
    assert all(each.factor > 0 and each.effort == 2 for each in found)


def test_mistakes_are_named(photo_folder, tmp_path):
    base = ["profile_loaders.py", "plan", f"--plan.photos={photo_folder}"]
    assert_user_error(here(*base, "--plan.modes=gif"), "unknown mode 'gif'")
    assert_user_error(here(*base, "--plan.sizes=big"), "plan.sizes=big")
    assert_user_error(here(*base, "--plan.stages=none"), "stage")
    assert_user_error(here(*base[:2], f"--plan.photos={tmp_path}/none"), "there is no folder")
    assert_user_error(here(*base[:2]), "plan.photos")
