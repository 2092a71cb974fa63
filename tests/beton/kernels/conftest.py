import pytest

from tests.support.kernels import VARIANTS, build


@pytest.fixture(scope="session")
def variants(tmp_path_factory):
    """The decoders and the encoder, compiled in every way: {name: Kernels}."""
    return build(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="session", params=VARIANTS)
def kernels(request, variants):
    return variants[request.param]
