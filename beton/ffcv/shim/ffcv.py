"""What `import ffcv` finds in child processes of `python -m beton.ffcv`: beton.ffcv takes the place of this module."""

import importlib
import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("beton") is None:  # it was found by the parent's working directory
    sys.path.append(str(Path(__file__).parents[3]))
importlib.import_module("beton.ffcv.alias").install()
sys.modules["ffcv"] = importlib.import_module("beton.ffcv")
