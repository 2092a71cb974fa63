"""The library from one end to the other through its public face, on this system and on one that has less."""

import mmap
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import beton
from beton import system

STAGES = [
    "rrc((24, 32))|flip|normalize",
    "center(24, 0.875)|normalize",
    "src(24)|vflip|normalize",
    "rrc(24)|gray|normalize",
    "rrc(24)|jitter(0.4)|normalize",
    "rrc(24)|blur|normalize",
    "rrc(24)|solarize|normalize",
    "rrc(24)|flip|three_augment|normalize",
    'rrc(24)|flip|randaugment("rand-m9-mstd0.5-inc1")|normalize',
    "rrc(24)|normalize|erase(0.5)",
]


def photos(count: int = 40) -> list[tuple[np.ndarray, int]]:
    rng = np.random.default_rng(0)
    return [(rng.integers(0, 256, (30 + i, 70 - i, 3), np.uint8), i % 3) for i in range(count)]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("library") / "photos.beton"
    beton.write(photos(), path, workers=2, classes=list("abc"), write_mode="raw")
    return path


def read_all(path, stages: str, **options) -> tuple[torch.Tensor, torch.Tensor]:
    with beton.Loader(path, batch_size=16, image=stages, workers=2, **options) as loader:
        images, labels = zip(*loader, strict=True)
        return torch.cat(images), torch.cat(labels)


@pytest.mark.parametrize("mode", ["raw", "jpg", "blocks"])
def test_what_is_written_is_read(tmp_path, mode):
    path = tmp_path / "photos.beton"
    card = beton.write(photos(), path, workers=2, classes=list("abc"), write_mode=mode)
    assert card["num_samples"] == 40
    with beton.open(path) as file:
        assert len(file) == 40
        assert file.classes == ["a", "b", "c"]
        assert file.labels.tolist() == [i % 3 for i in range(40)]
        for i, (pixels, label) in enumerate(photos()):
            image, found = file[i]
            assert (image.shape, found) == (pixels.shape, label)
            if mode == "raw":
                np.testing.assert_array_equal(image, pixels)
    images, labels = read_all(path, "center(24, 1)", shuffle=False)
    assert images.shape == (40, 3, 24, 24)
    assert labels.tolist() == [i % 3 for i in range(40)]


@pytest.mark.parametrize("stages", STAGES)
def test_stages_give_finite_numbers_that_depend_on_the_seed_alone(path, stages):
    images, labels = read_all(path, stages)
    assert images.isfinite().all()
    assert sorted(labels.tolist()) == sorted(i % 3 for i in range(40))
    again, _ = read_all(path, stages, in_memory=True)
    assert torch.equal(images, again)
    if not stages.startswith("center"):
        assert not torch.equal(images, read_all(path, stages, seed=1)[0])


def test_a_system_that_lacks_much(tmp_path, monkeypatch):
    monkeypatch.setattr(system, "fcntl", None)
    for module, name in ((os, "sched_getaffinity"), (os, "pread"), (os, "O_NONBLOCK"), (os, "O_DIRECTORY")):
        monkeypatch.delattr(module, name, raising=False)
    monkeypatch.delattr(mmap, "MADV_WILLNEED", raising=False)
    path = tmp_path / "photos.beton"
    beton.write(photos(), path, write_mode="raw")
    with beton.open(path) as file:
        np.testing.assert_array_equal(file[17].image, photos()[17][0])
    for in_memory in (True, False):
        images, _ = read_all(path, "rrc(24)|flip|normalize", in_memory=in_memory)
        assert images.shape == (40, 3, 24, 24)


@pytest.mark.parametrize("module", ["beton", "beton.format.file", "beton.inspecting"])
def test_imports_that_a_start_can_do_without(module):
    script = f"import sys, {module}; print([m for m in ('torch', 'numba', 'cv2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_kernels_load_when_they_are_used():
    script = "import ctypes, beton; from beton import kernels; print(kernels._library.cache_info().currsize)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
    script = "import sys; from beton import kernels; kernels.library_path(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
