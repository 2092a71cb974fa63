"""beton.ffcv on a GPU, and its rehearsal on the CPU: what comes out is what comes out without one."""

import numpy as np
import torch

from beton.ffcv import plan
from beton.ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder
from beton.ffcv.loader import Loader, OrderOption
from beton.ffcv.transforms import NormalizeImage, RandomHorizontalFlip, Squeeze, ToDevice, ToTensor, ToTorchImage
from tests.support.cuda import pretend

MEAN, STD = np.array([123.7, 116.3, 103.5]), np.array([58.4, 57.1, 57.4])


def epochs(path, device):
    """Two epochs, read late, in the host's memory."""
    image = [RandomResizedCropRGBImageDecoder((24, 24)), RandomHorizontalFlip(), ToTensor(), ToDevice(device)]
    image += [ToTorchImage(), NormalizeImage(MEAN, STD, np.float16)]
    pipelines = {"image": image, "label": [IntDecoder(), ToTensor(), Squeeze()]}  # which stays on the host
    loader = Loader(str(path), 3, num_workers=2, order=OrderOption.RANDOM, seed=4, pipelines=pipelines)
    for _ in range(2):
        held = list(loader)
        yield [(images.cpu(), labels) for images, labels in held]


def test_batches_are_those_of_the_cpu(numbered, device, monkeypatch):
    expected = list(epochs(numbered["beton"], "cpu"))
    if device == "cpu":
        pretend(monkeypatch)
        monkeypatch.setattr(plan, "_goes_to_gpu", lambda operation: isinstance(operation, ToDevice))
    for before, after in zip(expected, epochs(numbered["beton"], device), strict=True):
        assert len(before) == len(after) > 3
        for (images, labels), (found, numbers) in zip(before, after, strict=True):
            assert torch.equal(labels, numbers) and found.dtype == torch.float16
            torch.testing.assert_close(found, images, rtol=1e-2, atol=1e-2)
