"""Options of the tests, and the photos and betons that many of them read."""

import fcntl
import os
import sys

# Before torch is imported. pytest-xdist's workers inherit it
if "--gpu" not in sys.argv and "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the tests of the CPU must not find a GPU

import cv2
import hypothesis
import pytest
import torch

from beton.sources.generated import open_source
from beton.sources.imagefolder import open_source as open_folder
from tests.support.betons import write_source
from tests.support.photos import draw_photos

# The machine may be busy
hypothesis.settings.register_profile("tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("tests")
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the threads of several workers would slow each other down


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the slow tests too")
    parser.addoption("--gpu", action="store_true", help="run the tests of a GPU, and no others")


def pytest_configure(config):
    if config.getoption("--gpu") and not torch.cuda.is_available():
        why = f"torch {torch.__version__} finds none"
        pytest.exit(f"the tests of a GPU need one, and {why}; run them on a machine that has one", returncode=2)


def pytest_collection_modifyitems(config, items):
    wanted = config.getoption("--gpu")
    of_a_gpu = [item for item in items if item.get_closest_marker("gpu")]
    others = [item for item in items if not item.get_closest_marker("gpu")]
    items[:], left = (of_a_gpu, others) if wanted else (others, of_a_gpu)
    config.hook.pytest_deselected(items=left)
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """once(name, make): the folder that make(folder) has filled, in one of pytest-xdist's workers for all of them."""

    def made(name, make):
        if "PYTEST_XDIST_WORKER" not in os.environ:
            folder = tmp_path_factory.mktemp(name)
            make(folder)
            return folder
        folder = tmp_path_factory.getbasetemp().parent / name  # that of all workers
        with open(f"{folder}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                (unfinished := folder.with_suffix(".unfinished")).mkdir()
                make(unfinished)
                unfinished.rename(folder)
        return folder

    return made


@pytest.fixture(scope="session")
def photo_folder(once):
    """Generated photos: 120 for training and 41 for validation, 10 classes, as folders of class folders."""
    return once("photos", _make_photos)


def _make_photos(folder):
    for split, count in (("train", 120), ("val", 41)):
        source = open_source(None, split, seed=0, count=count)
        for i in range(count):
            path = folder / split / source.name(i)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.read(i)[0])


@pytest.fixture(scope="session")
def betons(photo_folder, once):
    """JPEG betons of at most 128 px of the photo folder: {"train": path, "val": path}."""

    def make(folder):
        for split in ("train", "val"):
            source = open_folder(str(photo_folder / split), split)
            write_source(source, folder / f"{split}.beton", "jpg", max_resolution=128)

    folder = once("betons", make)
    return {split: folder / f"{split}.beton" for split in ("train", "val")}


@pytest.fixture(scope="session")
def numbered(tmp_path_factory):
    """45 small photos of many sizes whose label is their number: a "folder" and a JPEG "beton" of it."""
    base = tmp_path_factory.mktemp("numbered")
    for i, photo in enumerate(draw_photos(45, 20, 90)):
        (base / f"photos/c{i:03d}").mkdir(parents=True)
        cv2.imwrite(str(base / f"photos/c{i:03d}/photo.jpg"), photo)
    write_source(open_folder(str(base / "photos"), "train"), base / "all.beton", "jpg")
    return {"folder": base / "photos", "beton": base / "all.beton"}


@pytest.fixture
def uncompiled():
    """Stock FFCV without its compiler, which takes 5 s for each pipeline: the same operations, called by Python."""
    Compiler = pytest.importorskip("ffcv.pipeline.compiler").Compiler

    threads = torch.get_num_threads()
    Compiler.set_enabled(False)
    yield
    Compiler.set_enabled(True)
    torch.set_num_threads(threads)
