"""python -m beton.ffcv: `import ffcv` means beton.ffcv, in child processes of all kinds too."""

import subprocess
import sys

import pytest

from tests.support.scripts import ROOT

SCRIPT = """
import multiprocessing, subprocess, sys
import ffcv
from ffcv.fields import IntField
from ffcv.loader import Loader
import beton.ffcv.fields

def child():
    import ffcv.transforms
    print(ffcv.transforms.__name__, flush=True)

if __name__ == "__main__":
    assert IntField is beton.ffcv.fields.IntField
    print(ffcv.__name__, ffcv.__spec__.name, sys.argv[1:], flush=True)
    for method in ("spawn", "fork"):
        process = multiprocessing.get_context(method).Process(target=child)
        process.start()
        process.join()
    subprocess.run([sys.executable, "-c", "import ffcv; print(ffcv.__name__)"], cwd="/", check=True)
    import ffcv.benchmarks
"""


def run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "beton.ffcv", *arguments], cwd=cwd, capture_output=True, text=True, timeout=150
    )


@pytest.mark.skipif(sys.platform == "win32", reason="fork")
def test_a_script_and_its_children(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = run(str(tmp_path / "script.py"), "--epochs=3", cwd=ROOT)
    lines = done.stdout.splitlines()
    assert lines == ["beton.ffcv beton.ffcv ['--epochs=3']", *["beton.ffcv.transforms"] * 2, "beton.ffcv"], done.stderr
    assert done.returncode == 1 and "No module named 'ffcv.benchmarks': this is beton.ffcv" in done.stderr


@pytest.mark.parametrize("arguments", [(), ("-m",), ("missing.py",)])
def test_nothing_to_run_is_a_user_error(arguments):
    done = run(*arguments, cwd=ROOT)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
