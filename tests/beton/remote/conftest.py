"""Files to be fetched: 96 photos in one file and in four parts, in a folder that a server shows."""

import numpy as np
import pytest

import beton
from beton.inspecting.commands import main
from tests.support.remote import Server, make_small


@pytest.fixture(scope="session")
def shown(tmp_path_factory):
    """The folder with train.beton and train-1-of-4.beton ..., and their cards."""
    folder, rng = tmp_path_factory.mktemp("shown"), np.random.default_rng(1)
    photos = [(rng.integers(0, 256, (40, 40, 3), np.uint8), i % 3) for i in range(96)]
    beton.write(photos, folder / "train.beton", write_mode="raw", workers=2)
    main(["split", str(folder / "train.beton"), "4"])
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch):
    make_small(monkeypatch)


@pytest.fixture
def server(shown):
    with Server(shown) as server:
        yield server
