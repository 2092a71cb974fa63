"""`import ffcv`, and any module of it, means beton.ffcv."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

_OURS = "beton.ffcv"
_SHIM = Path(__file__).with_name("shim")


class _Alias(MetaPathFinder, Loader):
    """Gives the module of beton.ffcv itself, so that a class is the same by both names."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """For ffcv and what lies below it. Raises ModuleNotFoundError for what beton.ffcv has not."""
        first, dot, rest = fullname.partition(".")
        if first != "ffcv":
            return None
        if importlib.util.find_spec(f"{_OURS}{dot}{rest}") is None:
            what = f"No module named {fullname!r}: this is {_OURS}, and docs/ffcv.md says what it has"
            raise ModuleNotFoundError(what, name=fullname)
        return ModuleSpec(fullname, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module; importing it changes its __spec__."""
        _, dot, rest = spec.name.partition(".")
        module = importlib.import_module(f"{_OURS}{dot}{rest}")
        spec.loader_state = module.__spec__
        spec.submodule_search_locations = module.__spec__.submodule_search_locations
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has run; put its __spec__ back."""
        module.__spec__ = module.__spec__.loader_state


def install() -> None:
    """Have `import ffcv` mean beton.ffcv in this process. Stock FFCV must not have been imported."""
    if not any(isinstance(finder, _Alias) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Alias())


def install_for_children() -> None:
    """The same in processes that this one starts, however it does so: a folder with a module `ffcv` that calls
    install() comes first where Python looks."""
    paths = [str(_SHIM), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    if str(_SHIM) not in sys.path:
        sys.path.insert(0, str(_SHIM))  # which multiprocessing gives to a process that it spawns
