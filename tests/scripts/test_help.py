"""--help starts quickly: it imports neither torch nor what needs it."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
HEAVY = {"torch", "timm", "torchvision", "numba", "numpy", "cv2", "PIL", "matplotlib"}
CODE = """
import runpy, sys
sys.argv = [sys.argv[1], "--help"]
sys.path.insert(0, "")
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit:
    print("imported", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize("script", ["train_imagenet", "train_transformers", "write_dataset", "profile_loaders"])
def test_help_is_light(script):
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, f"{script}.py", "--help"], cwd=ROOT, capture_output=True, text=True)
        seconds.append(time.perf_counter() - started)
        assert done.returncode == 0 and done.stdout.startswith(f"usage: {script}.py"), done.stderr
    command = [sys.executable, "-c", CODE, f"{script}.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    imported = done.stdout.splitlines()[-1].split()
    assert imported[0] == "imported" and "fastargs" in imported
    assert not HEAVY & set(imported)
    assert min(seconds) < 0.5
