"""The pipeline cached, beside the contract: the ceiling, one batch again and again."""

import psutil
import pytest
import torch

from pipelines import open_pipeline
from tests.support.loaders import run_epoch, task


@pytest.mark.parametrize(("kind", "source"), [("folder", "torch"), ("beton", "beton")])
def test_it_yields_the_first_batch_as_often_as_there_are_batches(numbered, kind, source):
    """The same whichever epoch and batch a run goes on with."""
    children = set(psutil.Process().children())
    loader = open_pipeline("cached", task(numbered[kind]))
    assert set(psutil.Process().children()) <= children
    for batches, count in ((loader.batches(1, 2), 3), (loader.batches(2), 5), (loader, 5)):
        found = list(batches)
        assert len(found) == count and len(loader) == 5
        assert len({images.data_ptr() for images, _ in found}) == 1
    images, labels = run_epoch(source, numbered[kind])[0]
    assert torch.equal(found[0][0], images) and torch.equal(found[0][1], labels)
