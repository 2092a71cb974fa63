"""The pages of docs/: their code runs, block by block from top to bottom, in a process and a folder of its own."""

import re

import pytest

from tests.support.scripts import ROOT, run_script

PAGES = ["library.md"]


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page, tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.M | re.S)
    assert blocks
    done = run_script("-c", "\n".join(blocks), timeout=200, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
