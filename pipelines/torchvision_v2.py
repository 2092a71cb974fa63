"""torchvision's v2 transforms on tensors in a DataLoader, JPEGs decoded by torchvision.io.

As torchvision's documentation recommends for speed: tensors instead of PIL images, v2 instead of v1, uint8 until
normalised, antialiased.
"""

import torch

from beton.loading.damage import RAISE
from pipelines._peer import check, recipe
from pipelines.torch import Torch


def _decode(data: bytes) -> torch.Tensor:
    from torchvision.io import ImageReadMode, decode_image

    return decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)


class TorchvisionV2(Torch):
    """torch's DataLoader with other transforms."""

    on_error = (RAISE,)
    decode = staticmethod(_decode)

    def transform(self):
        """torchvision.transforms.v2 for the stages; raises UserError for one that is not in a Recipe."""
        from torchvision.transforms import v2

        check("torchvision_v2", self.task)
        want = recipe("torchvision_v2", self.task)
        size = (want.height, want.width)
        if want.scale is None:
            found = [v2.Resize(min(want.covered)) if want.height == want.width else v2.Resize(want.covered)]
            found.append(v2.CenterCrop(size))
        else:
            found = [v2.RandomResizedCrop(size, want.scale, want.ratio, antialias=True)]
        found.append(v2.RandomHorizontalFlip(want.flip))
        if want.mean:
            found += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(want.mean, want.std)]
        return v2.Compose(found)


PIPELINE = TorchvisionV2
