"""A loader that is closed whatever happens."""

import pytest

import beton
from tests.support.loaders import within


@pytest.fixture
def opened(numbered, request):
    """opened(**arguments): a loader of the numbered photos in batches of 8, through STAGES of the
    test's module; closed at the end of the test."""
    loaders = []

    def open_one(path=numbered["beton"], batch_size=8, **arguments):
        loaders.append(beton.Loader(path, batch_size, **({"image": request.module.STAGES, "workers": 2} | arguments)))
        return loaders[-1]

    yield open_one
    for loader in loaders:
        within(60, loader.close)
