"""Run a script for which `import ffcv` means beton.ffcv, in its child processes too."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from beton.errors import UserError

_STAND_IN = Path(__file__).resolve().parent / "stand_in"
_USAGE = "python -m beton.ffcv script.py [arguments], or python -m beton.ffcv -m module [arguments]"


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds ffcv.x as beton.ffcv.x: one module by two names."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """For ffcv and what is below it. Raises ModuleNotFoundError for what beton.ffcv has not."""
        if name != "ffcv" and not name.startswith("ffcv."):
            return None
        own = importlib.util.find_spec(f"beton.{name}")
        if own is None:
            what = f"No module named {name!r}: this is beton.ffcv, and docs/ffcv.md says what it has"
            raise ModuleNotFoundError(what, name=name)
        spec = importlib.util.spec_from_loader(name, self, is_package=own.submodule_search_locations is not None)
        spec.loader_state = own
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """The module that is there already, or is imported now."""
        return importlib.import_module(f"beton.{spec.name}")

    def exec_module(self, module: ModuleType) -> None:
        """It has run; importlib has given it the other name's spec."""
        module.__spec__ = module.__spec__.loader_state


def install() -> None:
    """From here on `import ffcv` means beton.ffcv in this process, and in those that it starts."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    for name in [name for name in sys.modules if name == "ffcv" or name.startswith("ffcv.")]:
        del sys.modules[name]
    sys.modules["ffcv"] = importlib.import_module("beton.ffcv")
    if str(_STAND_IN) not in sys.path:  # multiprocessing hands sys.path to what it starts
        sys.path.insert(0, str(_STAND_IN))
    known = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(_STAND_IN), *known]))


def check(argv: list[str]) -> None:
    """Raise UserError unless `argv` is a script that is there, or -m and a module, with arguments."""
    if not argv or argv == ["-m"]:
        raise UserError("no script was given", _USAGE)
    if argv[0] != "-m" and not Path(argv[0]).is_file():
        raise UserError(f"there is no script {argv[0]}", _USAGE)


def run(argv: list[str]) -> None:
    """Run `argv` as Python would, in this process."""
    if argv[0] == "-m":
        sys.argv, sys.path[0] = argv[1:], os.getcwd()
        install()
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = argv, str(Path(argv[0]).resolve().parent)
        install()
        runpy.run_path(argv[0], run_name="__main__")
