"""ffcv-imagenet's name for a folder of class folders."""

from beton.sources.imagefolder import SOURCE  # noqa: F401
