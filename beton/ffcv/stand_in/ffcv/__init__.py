"""What `import ffcv` finds in the child processes of `python -m beton.ffcv`: beton.ffcv takes its place."""

import importlib
import importlib.util
import sys
from pathlib import Path

_root = Path(__file__).resolve().parents[4]
_found = importlib.util.find_spec("beton")
if _found is None or Path(_found.origin).resolve().parents[1] != _root:  # the parent found it in its working directory
    sys.path.insert(0, str(_root))
importlib.import_module("beton.ffcv.launch").install()
