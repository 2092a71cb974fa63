"""Shared parts of the tests: photos made on the spot, betons of them, scripts run as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.sources.generated import open_source
from pipelines.writer import WriteOptions, write

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the slow tests too")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))


# uv leaves the packages uncompiled: kept once compiled, an import of torch and timm takes 5 s of CPU time and not 12
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# torch's threads slow each other down when other programs run beside the tests
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def run_script(*command, timeout=300, **env) -> subprocess.CompletedProcess:
    """Run a script of the repository, e.g. run_script("write_dataset.py", "--cfg.split=train")."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**ENVIRONMENT, **env},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def assert_user_error(done: subprocess.CompletedProcess, *words: str) -> None:
    """The run ended with status 2 and one line `error: what; what to do` that holds these words."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert "; " in lines[0]
    for word in words:
        assert word in lines[0]


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory) -> Path:
    """Generated photos: 120 for training and 41 for validation, 10 classes, as folders of class folders."""
    folder = tmp_path_factory.mktemp("photos")
    for split, count in (("train", 120), ("val", 41)):
        source = open_source(None, split, seed=0, count=count)
        for i in range(count):
            path = folder / split / source.name(i)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.read(i))
    return folder


@pytest.fixture(scope="session")
def betons(photo_folder, tmp_path_factory) -> dict[str, Path]:
    """JPEG betons of at most 128 px of the photo folder: 'train' and 'val'."""
    from pipelines.sources.imagefolder import open_source as open_folder

    folder = tmp_path_factory.mktemp("betons")
    for split in ("train", "val"):
        source = open_folder(str(photo_folder / split), split)
        write(source, folder / f"{split}.beton", WriteOptions("jpg", 128, num_workers=2), {})
    return {split: folder / f"{split}.beton" for split in ("train", "val")}


@pytest.fixture(scope="session")
def numbered(tmp_path_factory) -> dict[str, Path]:
    """45 small photos of many sizes whose label is their number: a 'folder' and a JPEG 'beton' of it."""
    import cv2
    from loading import draw_photos

    from pipelines.sources.imagefolder import open_source as open_folder

    base = tmp_path_factory.mktemp("numbered")
    for i, photo in enumerate(draw_photos(45, 20, 90)):
        (base / f"photos/c{i:03d}").mkdir(parents=True)
        cv2.imwrite(str(base / f"photos/c{i:03d}/photo.jpg"), photo)
    write(open_folder(str(base / "photos"), "train"), base / "all.beton", WriteOptions("jpg", num_workers=2), {})
    return {"folder": base / "photos", "beton": base / "all.beton"}
