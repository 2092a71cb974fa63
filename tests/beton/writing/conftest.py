import pytest


@pytest.fixture
def out(tmp_path):
    """An empty folder to write to."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"
