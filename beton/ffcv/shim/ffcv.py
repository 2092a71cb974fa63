"""What `import ffcv` finds in child processes of `python -m beton.ffcv`: beton.ffcv takes the place of this module."""

import importlib
import importlib.util
import sys
from pathlib import Path

_root = Path(__file__).resolve().parents[3]
_found = importlib.util.find_spec("beton")
if _found is None or Path(_found.origin).resolve().parents[1] != _root:  # the parent found it in its working directory
    sys.path.insert(0, str(_root))
importlib.import_module("beton.ffcv.alias").install()
sys.modules["ffcv"] = importlib.import_module("beton.ffcv")
