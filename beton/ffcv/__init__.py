"""FFCV's Python API on this library's engine: code that was written for FFCV runs as it is.

    python -m beton.ffcv train.py --its --arguments     # `import ffcv` means this, in child processes too
    from beton.ffcv.loader import Loader, OrderOption   # or so, in the code

Modules and names are those of FFCV 1.0.2; docs/ffcv.md says what is different, and why.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "1.0.2"  # of the API
__all__ = ["DatasetWriter", "Loader", "explain"]

if TYPE_CHECKING:
    from beton.ffcv.explained import explain
    from beton.ffcv.loader.loader import Loader
    from beton.ffcv.writer import DatasetWriter

_WHERE = {
    "DatasetWriter": "beton.ffcv.writer",
    "Loader": "beton.ffcv.loader.loader",
    "explain": "beton.ffcv.explained",
}
_MODULES = ("fields", "libffcv", "loader", "memory_managers", "pipeline", "reader", "transforms")
_MODULES += ("traversal_order", "types", "utils", "writer")


def __getattr__(name: str) -> Any:
    """What `import ffcv` has loaded in FFCV is loaded here when it is first asked for."""
    if name in _WHERE:
        globals()[name] = getattr(importlib.import_module(_WHERE[name]), name)
        return globals()[name]
    if name in _MODULES:
        return importlib.import_module(f"beton.ffcv.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
