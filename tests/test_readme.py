"""README.md: its tables are those of the measured files, its links lead somewhere."""

import re

import torch

from tests.support.scripts import ROOT, here
from tests.support.wheel_user import run_readme

CODE = ["beton", "pipelines", "runtime", "benchmarks", "tests", "rn_configs", "vit_configs", "launch_configs"]


def test_tables_are_up_to_date():
    done = here("benchmarks/update_readme.py", "--check")
    assert done.returncode == 0, done.stderr


def test_the_first_lines_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_readme()
    assert names["images"].shape[1:] == (3, 224, 224) and names["labels"].dtype == torch.int64
    assert len(names["file"]) == 300 and len(names["file"].labels) == 300


def test_links_lead_to_files():
    text = (ROOT / "README.md").read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("http") or (ROOT / link).exists(), link


def test_every_script_and_configuration_it_names_is_there():
    text = (ROOT / "README.md").read_text()
    names = {path.name for folder in CODE for path in (ROOT / folder).rglob("*")} | {
        path.name for path in ROOT.iterdir()
    }
    for name in set(re.findall(r"(?:\./)?((?:rn_configs/|pipelines/|runtime/)?[a-z_0-9]+\.(?:py|sh|yaml)\b)", text)):
        assert (ROOT / name).exists() or name in names, name
