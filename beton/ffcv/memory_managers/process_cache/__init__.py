"""FFCV's cache of its own for os_cache=False. Here the system's does it: the loader asks it to read ahead."""

from beton.ffcv.memory_managers.os_cache import OSCacheManager


class ProcessCacheManager(OSCacheManager):
    """The same as OSCacheManager; with os_cache=False the loader asks the system for the pages of coming batches."""


__all__ = ["ProcessCacheManager"]
