import pytest
import torch


@pytest.fixture
def uncompiled():
    """Stock FFCV without its compiler, which takes 5 s for each pipeline: the same operations, called by Python."""
    from ffcv.pipeline.compiler import Compiler

    threads = torch.get_num_threads()
    Compiler.set_enabled(False)
    yield
    Compiler.set_enabled(True)
    torch.set_num_threads(threads)
