"""How the bytes of a file come into memory: here they are mapped, always."""

from beton.ffcv.memory_managers.base import MemoryContext, MemoryManager
from beton.ffcv.memory_managers.os_cache import OSCacheManager
from beton.ffcv.memory_managers.process_cache import ProcessCacheManager

__all__ = ["MemoryContext", "MemoryManager", "OSCacheManager", "ProcessCacheManager"]
