"""The conftest.py of FFCV's own tests (tests/ffcv_suite.sh): random pictures for CIFAR-10, no GPU."""

import os
import signal

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image


class RandomPictures(torch.utils.data.Dataset):
    """60,000 random pictures of 32 x 32, with the arguments and the samples of torchvision's CIFAR10."""

    def __init__(self, root, train=True, download=False):
        pass

    def __len__(self):
        return 60_000

    def __getitem__(self, i):
        rng = np.random.default_rng(int(i))
        return Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)), int(i) % 10


torchvision.datasets.CIFAR10 = RandomPictures


def pytest_collection_modifyitems(items):
    for item in items:
        if item.name in ("test_gpu_normalization", "test_cuda") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """A test that hangs fails after SECONDS_PER_TEST."""

    def stop(*_):
        raise TimeoutError(f"{item.name} hangs")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(int(os.environ.get("SECONDS_PER_TEST", 120)))
    try:
        return (yield)
    finally:
        signal.alarm(0)
