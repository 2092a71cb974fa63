"""FFCV's loader."""

from beton.ffcv.loader.loader import Loader, OrderOption

__all__ = ["Loader", "OrderOption"]
