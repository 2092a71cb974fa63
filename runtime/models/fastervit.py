"""FasterViT comes from the package `fastervit`, which each user installs: its licence is non-commercial."""

import importlib.util
import warnings

from pipelines.errors import UserError


def register() -> None:
    """Make timm know `faster_vit_*`; raises UserError where the package is missing."""
    if importlib.util.find_spec("fastervit") is None:
        raise UserError(
            "FasterViT needs the package 'fastervit', which is not installed, as its licence (NVIDIA Source Code "
            "License-NC) allows only non-commercial use, research and evaluation",
            "if that is your use, run ./setup.sh fastervit, or pip install 'fastervit>=1.0,<2'",
        )
    with warnings.catch_warnings():
        # It imports timm's layers and registry by names that timm has moved since
        warnings.simplefilter("ignore", FutureWarning)
        import fastervit  # noqa: F401  importing it registers its models


def size_arguments(name: str, img_size: int) -> dict | None:
    """The arguments that build the model for images of this side, or None: most are for one side only.

    They would swallow timm's `img_size` and fail on the first batch.
    """
    return {"resolution": [img_size, img_size]} if name.endswith("_any_res") else None
