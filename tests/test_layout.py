"""The layout's promises: imports go only forward, an addition is one file, nothing is of one machine."""

import ast
import re
import subprocess
import sys

import pytest
import torch
from loading import ROOT, labels_of, task

from pipelines import loaders, ops
from pipelines.errors import UserError
from pipelines.loaders import open_loader
from pipelines.stages import parse

SCRIPTS = {path.stem for path in ROOT.glob("*.py")}


def imported(path):
    """Top-level names of the modules that a file imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield node.module.split(".")[0]


@pytest.mark.parametrize(("package", "later"), [("pipelines", {"runtime", *SCRIPTS}), ("runtime", SCRIPTS)])
def test_imports_go_only_forward(package, later):
    files = sorted((ROOT / package).rglob("*.py"))
    assert len(files) > 10
    for path in files:
        assert not set(imported(path)) & {*later, "tests"}, path


STAGE = '''
"""invert: the negative."""
from torchvision.transforms import Lambda
from PIL.ImageOps import invert
from pipelines.stages import Stage

class Invert(Stage):
    def apply(self, images, keys):
        images[:] = 255 - images
    def reference(self):
        return Lambda(invert)

STAGE = Invert
'''


@pytest.mark.parametrize(("loader", "data"), [("ffcv", "beton"), ("torch", "folder")])
def test_a_stage_is_one_file(numbered, tmp_path, monkeypatch, loader, data):
    (tmp_path / "invert.py").write_text(STAGE)
    monkeypatch.setattr(ops, "__path__", [*ops.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "pipelines.ops.invert", raising=False)
    given = {"shuffle": False, "workers": 1}
    pictures = []
    for stages in ("center(24)", "center(24)|invert"):
        opened = open_loader(loader, task(numbered[data], stages=stages, **given))
        pictures.append(torch.cat([images for images, _ in opened]))
        opened.close()
    assert torch.equal(pictures[1], 255 - pictures[0])
    monkeypatch.undo()
    with pytest.raises(UserError, match="add pipelines/ops/invert.py"):
        parse("center(24)|invert")


LOADER = '''
"""Batches of the FFCV loader, backwards."""
from pipelines.loaders import ffcv
needs, reads = NEEDS, "beton"

def open_loader(task):
    return Loader(task)

class Loader(ffcv.Loader):
    def __iter__(self):
        return iter(list(super().__iter__())[::-1])
'''


def test_a_loader_is_one_file(numbered, tmp_path, monkeypatch):
    (tmp_path / "backwards.py").write_text(LOADER.replace("NEEDS", "{'numpy': 'numpy'}"))
    (tmp_path / "lacking.py").write_text(LOADER.replace("NEEDS", "{'no_such_module': 'its-package'}"))
    monkeypatch.setattr(loaders, "__path__", [*loaders.__path__, str(tmp_path)])
    for name in ("backwards", "lacking"):
        monkeypatch.delitem(sys.modules, f"pipelines.loaders.{name}", raising=False)
    assert {"backwards", "ffcv", "torch"} <= set(loaders.known())
    given = task(numbered["beton"], shuffle=False, batch_size=1)
    assert labels_of(open_loader("backwards", given)) == list(range(45))[::-1]
    with pytest.raises(UserError, match="pip install its-package"):
        open_loader("lacking", given)


# Folders of one machine, and registries. Written so that this file does not match.
FOREIGN = [r"/(root|work)/", r"/home/[a-z]\w*/", r"index[-_]url", r"pypi[.]", r"pythonhosted", r"artifactory"]


def test_no_file_names_a_folder_of_one_machine_or_a_registry():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, timeout=30)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    found = []
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = ROOT / name
        if path.is_file() and path.name != "test_layout.py":
            text = path.read_bytes().decode("utf-8", "replace")
            found += [f"{name}: {match[0]}" for p in FOREIGN for match in [re.search(p, text, re.I)] if match]
    assert not found
