"""The files under vit_configs/, parsed."""

import pytest

import train_transformers
from runtime.config import parse
from tests.support.scripts import ROOT

FOLDER = ROOT / "vit_configs"
FILES = sorted(FOLDER.rglob("*.yaml"))


def name_of(path):
    return str(path.relative_to(FOLDER).with_suffix(""))


def settings_of(path):
    needed = ["--data.train_dataset=t", "--data.val_dataset=v"]
    return parse(train_transformers.declare(), [f"--config-file={path}", *needed])


each_file = pytest.mark.parametrize("path", FILES, ids=name_of)
