"""Loaders are compared before they are timed: planted ones that give something else are found, with the reason."""

import ctypes
import mmap
import os
import sys

import pytest

from runtime.profiling.agreement import compare
from runtime.profiling.measure import Measured, leave_page_cache

STAGES = "center(48)|normalize"
PLANTED = """
import torch
from pipelines.torch import Torch

class Planted(Torch):
    def read(self, *of_epoch):
        for images, labels in super().read(*of_epoch):
            yield {yields}

PIPELINE = Planted
"""
FAULTS = {
    "swapped": ("images[:, [2, 1, 0]].to(memory_format=torch.channels_last), labels", "blue, green, red"),
    "mislabelled": ("images, labels.roll(1)", "labels are not the reference's"),
    "moved": ("images, (labels + 1) % 10", "120 of its first 120 labels"),
    "plain": ("(images * 0.226 + 0.45), labels", "normalises otherwise"),
    "bytes": ("(images * 58 + 115), labels", "normalises otherwise"),
    "rows": ("images.permute(0, 2, 3, 1), labels", "48 x 48 x 3"),
    "planar": ("images.contiguous(), labels", "not in channels_last"),
    "mirrored": ("images.flip(3), labels", "its pixels differ|normalises otherwise"),
    "others": ("images.roll(1, 0), labels", "its pixels differ|normalises otherwise"),
    "good": ("images, labels", None),
}


@pytest.fixture
def sampled(photo_folder, betons, tmp_path):
    """sampled(loader): the file of its first images and labels."""

    def sample(loader):
        data = betons["train"] if loader == "beton" else photo_folder / "train"
        task = {"dataset": str(data), "stages": {"image": STAGES}, "batch_size": 1, "workers": 1}
        path = tmp_path / f"{loader}.npz"
        Measured(loader).check(task, str(path))
        return path

    return sample


@pytest.mark.parametrize("fault", FAULTS)
def test_a_loader_that_gives_something_else_is_found(sampled, tmp_path, monkeypatch, fault):
    yields, reason = FAULTS[fault]
    (tmp_path / f"planted_{fault}.py").write_text(PLANTED.format(yields=yields))
    monkeypatch.syspath_prepend(tmp_path)
    difference, why = compare(sampled(f"planted_{fault}"), sampled("torch"))
    if reason is None:
        assert (difference, why) == (0, None)
    else:
        assert any(words in why for words in reason.split("|")), why
    sys.modules.pop(f"planted_{fault}", None)


def test_loaders_with_other_filters_and_photos_that_were_encoded_again_agree(sampled):
    difference, why = compare(sampled("beton"), sampled("torch"))
    assert why is None and 0 < difference < 0.2
    difference, why = compare(sampled("torchvision_v2"), sampled("torch"))
    assert why is None and 0 <= difference < 0.05


def test_a_cold_measurement_leaves_nothing_of_the_files_in_the_page_cache(tmp_path):
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    path.write_bytes(os.urandom(1 << 20))
    path.read_bytes()
    if _resident(path) < 256:
        pytest.skip("this file system has no page cache that can be asked")
    leave_page_cache([str(tmp_path / "folder")])
    assert _resident(path) < 32


def _resident(path) -> int:
    """Pages of a file of 1 MiB that are in the page cache (mincore(2))."""
    pages = (ctypes.c_ubyte * 256)()
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        first = ctypes.c_char.from_buffer(mapped)
        failed = ctypes.CDLL(None).mincore(ctypes.byref(first), ctypes.c_size_t(1 << 20), pages)
        del first
    assert not failed
    return sum(page & 1 for page in pages)
