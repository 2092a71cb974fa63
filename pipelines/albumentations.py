"""Albumentations in a DataLoader, photos decoded by OpenCV, as its documentation shows for classification."""

import cv2
import numpy as np

from beton.loading.damage import RAISE
from pipelines._peer import check, recipe
from pipelines.torch import Torch


def _decode(data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError("OpenCV cannot decode it")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


class _Transform:
    def __init__(self, compose):
        self._compose = compose

    def __call__(self, image: np.ndarray):
        return self._compose(image=image)["image"]


class Albumentations(Torch):
    """torch's DataLoader with other transforms."""

    needs = {"albumentations": "albumentations"}
    on_error = (RAISE,)
    decode = staticmethod(_decode)

    def transform(self):
        """An albumentations.Compose for the stages; raises UserError for one that is not in a Recipe."""
        import albumentations as A
        from albumentations.pytorch import ToTensorV2

        check("albumentations", self.task)
        want = recipe("albumentations", self.task)
        size = (want.height, want.width)
        if want.scale is None:
            found = [A.SmallestMaxSize(max_size=min(want.covered)), A.CenterCrop(*size)]
        else:
            found = [A.RandomResizedCrop(size=size, scale=want.scale, ratio=want.ratio)]
        found.append(A.HorizontalFlip(p=want.flip))
        if want.mean:
            found.append(A.Normalize(mean=want.mean, std=want.std))
        return _Transform(A.Compose([*found, ToTensorV2()]))


PIPELINE = Albumentations
