"""FasterViT comes from the package `fastervit`, which users install themselves: its licence is non-commercial."""

import importlib.util
import warnings

from beton.errors import UserError


def register() -> None:
    """Make timm know `faster_vit_*`; raises UserError when the package is missing."""
    if importlib.util.find_spec("fastervit") is None:
        raise UserError(
            "FasterViT needs the package 'fastervit', which is not installed, as its licence (NVIDIA Source Code "
            "License-NC) allows only non-commercial use, research and evaluation",
            "if that is your use, run ./setup.sh fastervit, or pip install 'fastervit>=1.0,<2'",
        )
    with warnings.catch_warnings():
        # It imports timm's layers and registry by deprecated names
        warnings.simplefilter("ignore", FutureWarning)
        import fastervit  # noqa: F401  importing it registers its models


def size_arguments(name: str, img_size: int) -> dict | None:
    """The arguments that build the model for images of this side, or None: most models are for one side only.

    Those would ignore timm's `img_size` and fail on the first batch.
    """
    return {"resolution": [img_size, img_size]} if name.endswith("_any_res") else None
