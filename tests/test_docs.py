"""The pages of docs/: their code runs, block by block from top to bottom, in a process and a folder of its own.

A block whose first line is `# folder/name.py` is that file.
"""

import os
import re
import sys

import pytest

from tests.support.scripts import ROOT, Forked

PAGES = ["library.md", "transforms.md", "extending.md", "from_dataloader.md", "ffcv.md", "remote.md"]


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page, tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.M | re.S)
    code = []
    for block in blocks:
        if name := re.match(r"# (\w+/\w+\.py)\n", block):
            (tmp_path / name[1]).parent.mkdir(exist_ok=True)
            (tmp_path / name[1]).write_text(block)
        else:
            code.append(block)
    assert code
    process = Forked(tmp_path / "process", run, tmp_path, page, "\n".join(code))
    try:
        assert process.end() == 0, process.errors
    finally:
        process.stop()


def run(folder, page, code):
    """As `python -c` in a folder."""
    os.chdir(folder)
    sys.path.insert(0, "")
    exec(compile(code, page, "exec"), vars(sys.modules["__main__"]))


@pytest.mark.parametrize("page", [*PAGES, "trainers.md", "sources.md", "ranks.md", "launching.md", "scaling.md"])
def test_links_lead_to_files(page):
    for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / "docs" / page).read_text()):
        assert link.startswith("http") or (ROOT / "docs" / link).exists(), link
