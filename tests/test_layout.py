"""The layout's promises: imports go only down the floors, the library speaks its own words, nothing is of one machine.

That an addition is one file: test_plugins.py.
"""

import ast
import gc
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.scripts import ROOT

SCRIPTS = {path.stem for path in ROOT.glob("*.py")} - {"setup"}
# From the bottom: each may import what lies below it
FLOORS = [{"beton"}, {"pipelines", "runtime"}, SCRIPTS]
LIBRARY = {"numpy", "numba", "torch", "cv2", "PIL", "beton"}
# For what a part of it does: the references of stages, a progress bar, a kernel for CUDA, sources of other formats,
# URLs, FFCV's from_webdataset
IN_FUNCTIONS = {"torchvision", "timm", "tqdm", "ffcv", "pyarrow", "scipy", "huggingface_hub", "fsspec", "webdataset"}


def files_of(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    return files


def parsed(path):
    """The file's syntax tree. Without garbage collection: CPython 3.11's ast.parse fails if a finalizer, here one
    of stock FFCV's compiled functions, ends in a traceback while it builds the tree (cpython#106905)."""
    gc.disable()
    try:
        return ast.parse(path.read_text())
    finally:
        gc.enable()


def imported(path, nodes=ast.walk):
    """Top-level names of the modules that a file imports: anywhere in it, or in some of its `nodes`."""
    for node in nodes(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield node.module.split(".")[0]


def at_module_level(tree):
    """The nodes that run, or are seen by type checkers, when a module is imported: none within a function."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield node
            yield from at_module_level(node)


@pytest.mark.parametrize(("package", "floor"), [("beton", 0), ("pipelines", 1), ("runtime", 1)])
def test_imports_go_only_down(package, floor):
    above = set().union(*FLOORS[floor + 1 :], {"tests", "benchmarks"})
    if floor == 1:
        above |= {"runtime"} - {package}  # a pipeline is what the scripts are told, runtime tells it
    for path in files_of(package):
        assert not set(imported(path)) & above, path


def test_scripts_do_not_import_one_another():
    for name in SCRIPTS:
        assert not set(imported(ROOT / f"{name}.py")) & {*SCRIPTS, "tests", "benchmarks"}, name


def test_the_library_imports_only_what_it_needs():
    for path in files_of("beton"):
        found = set(imported(path)) - set(sys.stdlib_module_names) - LIBRARY
        assert found <= IN_FUNCTIONS, path
        assert not found & set(imported(path, at_module_level)), path


def test_the_library_names_no_parameter_of_a_script():
    """Its messages and comments name arguments of its functions; runtime/config.py translates them."""
    sections = r"\b(cfg|data|training|validation|lr|model|logging|dist)\.[a-z]\w+[= ]"
    for path in files_of("beton"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.search(sections, f"{node.value} "), f"{path}, line {node.lineno}: {node.value}"


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


@pytest.mark.skipif(sys.platform != "linux", reason="what glibc is")
def test_the_kernels_run_on_the_systems_that_torch_runs_on():
    """glibc 2.28, as torch's wheels: std::shared_ptr alone would need 2.32 (tests/wheel.sh checks all of it)."""
    from beton.kernels import library_path

    needed = re.findall(rb"GLIBC_2\.(\d+)", Path(library_path()).read_bytes())
    assert needed and max(map(int, needed)) <= 28
