"""Loaders are compared before they are timed: planted ones that give something else are found, with the reason."""

import ctypes
import mmap
import os

import pytest
import torch

from pipelines import PIPELINES
from pipelines.torch import Torch
from runtime.profiling.agreement import compare
from runtime.profiling.measure import Measured, leave_page_cache

STAGES = "center(48)|normalize"
# What each makes of a batch of the standard loader, and the reason that is given
FAULTS = {
    "swapped": (lambda i, n: (i[:, [2, 1, 0]].to(memory_format=torch.channels_last), n), "blue, green, red"),
    "mislabelled": (lambda i, n: (i, n.roll(1)), "labels are not the reference's"),
    "other classes": (lambda i, n: (i, (n + 1) % 10), "120 of its first 120 labels"),
    "unnormalised": (lambda i, n: (i * 0.226 + 0.45, n), "normalises otherwise"),
    "bytes": (lambda i, n: (i * 58 + 115, n), "normalises otherwise"),
    "rows first": (lambda i, n: (i.permute(0, 2, 3, 1), n), "48 x 48 x 3"),
    "planar": (lambda i, n: (i.contiguous(), n), "not in channels_last"),
    "mirrored": (lambda i, n: (i.flip(3).to(memory_format=torch.channels_last), n), "otherwise|its pixels differ"),
    "other photos": (lambda i, n: (i.roll(1, 0), n), "otherwise|its pixels differ"),
    "nothing": (lambda i, n: (i, n), None),
}


@pytest.fixture(scope="module")
def sampled(photo_folder, betons, tmp_path_factory):
    """sampled(loader): the file of its first images and labels, made once (but for "planted")."""
    folder = tmp_path_factory.mktemp("samples")

    def sample(loader):
        path = folder / f"{loader}.npz"
        if path.exists() and loader != "planted":
            return path
        data = betons["train"] if loader == "beton" else photo_folder / "train"
        task = {"dataset": str(data), "stages": {"image": STAGES}, "batch_size": 1, "workers": 1}
        Measured(loader).check(task, str(path))
        return path

    return sample


@pytest.mark.parametrize("fault", FAULTS)
def test_a_loader_that_gives_something_else_is_found(sampled, fault):
    change, reason = FAULTS[fault]

    class Planted(Torch):
        def read(self, *of_epoch):
            for batch in super().read(*of_epoch):
                yield change(*batch)

    PIPELINES.add("planted", Planted)
    try:
        difference, why = compare(sampled("planted"), sampled("torch"))
    finally:
        PIPELINES.remove("planted")
    if reason is None:
        assert (difference, why) == (0, None)
    else:
        assert any(words in why for words in reason.split("|")), why


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
