"""docs/sources.md: its commands run."""

import importlib.util
import re
import shlex

from tests.support import forms
from tests.support.betons import card_of
from tests.support.scripts import ROOT, here

PAGE = (ROOT / "docs" / "sources.md").read_text()
NEEDED = {"imagenet_tars": "scipy", "huggingface": "pyarrow"}


def test_every_command_runs(photo_folder, tmp_path, monkeypatch, capsys):
    from beton.inspecting.commands import main
    from beton.sources import SOURCES

    monkeypatch.chdir(tmp_path)
    for name, make in {
        "archives": forms.imagenet_val,
        "parquet": forms.parquet,
        "shards": forms.webdataset,
        "sets": forms.country211,
        ".": forms.zipped,
    }.items():
        (tmp_path / name).mkdir(exist_ok=True)
        if make not in (forms.imagenet_val, forms.parquet) or _has(NEEDED.values()):
            make(photo_folder / "val", tmp_path / name)
    (tmp_path / "photos").symlink_to(photo_folder)
    (tmp_path / "halves").mkdir()
    for line in "".join(re.findall(r"```bash\n(.*?)```", PAGE, re.S)).replace("\\\n", " ").splitlines():
        words = shlex.split(line)
        if words[:2] == ["python", "write_dataset.py"]:
            source = words[2].removeprefix("--cfg.dataset=")
            if source in NEEDED and not _has([NEEDED[source]]):
                continue
            done = here("write_dataset.py", *words[2:])
            assert done.returncode == 0, f"{line}: {done.stderr}"
        else:
            assert words[:3] == ["python", "-m", "beton"], line
            assert main(words[3:]) == 0, line
    assert card_of(tmp_path / "merged.beton")["num_samples"] == 41
    for name in SOURCES.names():
        assert f"`{name}" in PAGE, name


def _has(modules) -> bool:
    return all(map(importlib.util.find_spec, modules))
