"""Plugins: stages, fields, storage modes, sources and pipelines are found by name, each in one file."""

import difflib
import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from beton.errors import UserError


class Plugins:
    """The things of one kind: what each module of a package names by one attribute, and what was added.

    `kind` is the word for messages, e.g. "stage"; `package` the dotted name of the package; `attribute` the
    name that each module gives to its thing, e.g. "STAGE"; `others` are modules of the package that hold
    none. Modules whose names begin with an underscore hold none either.

    A name may also be the dotted path of a module elsewhere (`my_package.my_stage`).
    """

    def __init__(self, kind: str, package: str, attribute: str, others: Collection[str] = ()):
        self.kind, self._package, self._attribute, self._others = kind, package, attribute, set(others)
        self._added: dict[str, Any] = {}
        self._found: dict[str, Any] = {}  # get() is called for every image that is written
        self._all: dict[str, Any] | None = None

    def names(self) -> list[str]:
        """All names, sorted. Nothing is imported but the package itself."""
        path = importlib.import_module(self._package).__path__
        found = {module.name for module in pkgutil.iter_modules(path) if not module.name.startswith("_")}
        return sorted(found - self._others | self._added.keys())

    def add(self, name: str, thing: Any) -> None:
        """Make `thing` known as `name`; it goes before a module of that name."""
        self._added[name], self._all = thing, None

    def remove(self, name: str) -> None:
        """Forget what was added under this name."""
        del self._added[name]
        self._all = None

    def all(self) -> dict[str, Any]:
        """Every thing by its name; all their modules are imported."""
        if self._all is None:
            self._all = {name: self.get(name) for name in self.names()}
        return self._all

    def get(self, name: str) -> Any:
        """The thing of this name; raises UserError, with the nearest known name, when there is none."""
        if name in self._added:
            return self._added[name]
        if name not in self._found:
            self._found[name] = self._look_up(name)
        return self._found[name]

    def _look_up(self, name: str) -> Any:
        if name in self.names():
            return getattr(importlib.import_module(f"{self._package}.{name}"), self._attribute)
        if "." in name and all(part.isidentifier() for part in name.split(".")):
            return self._elsewhere(name)
        close = difflib.get_close_matches(name, self.names(), 1)
        raise UserError(
            f"unknown {self.kind} '{name}'" + (f" (did you mean '{close[0]}'?)" if close else ""),
            f"use one of {', '.join(self.names())}, or the dotted name of a module that defines {self._attribute}",
        )

    def _elsewhere(self, name: str) -> Any:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # the module is there, and lacks one itself
            raise UserError(f"there is no module '{name}' for the {self.kind}", "check the path of imports") from None
        if not hasattr(module, self._attribute):
            raise UserError(f"the module '{name}' defines no {self._attribute}", f"name the {self.kind} so in it")
        return getattr(module, self._attribute)


def load_file(path: str | Path) -> Any:
    """Import a Python file that registers something, such as stages with `@beton.stage`; once. Raises UserError where
    there is none; what goes wrong in the file is raised as it is."""
    path = Path(os.path.abspath(path))
    name = path.stem
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    if not os.path.isfile(path) or path.suffix != ".py":
        raise UserError(f"there is no Python file {path}", "give the path of one, such as my_stages.py")
    if known is not None or not name.isidentifier():
        raise UserError(f"a module is called '{name}' already", f"give {path.name} another name")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that what it defines can be pickled
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
