import pytest


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """A GPU with --gpu; else the CPU, on which the same is rehearsed."""
    return request.param
