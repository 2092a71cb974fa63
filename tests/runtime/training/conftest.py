import pytest

from tests.support.training import RESNET, Run


@pytest.fixture(scope="session")
def resnet(betons):
    """Settings of a small run."""
    return RESNET | {"data.train_dataset": betons["train"], "data.val_dataset": betons["val"]}


@pytest.fixture(scope="session")
def uninterrupted():
    """uninterrupted(folder, settings): the folder of a run without checkpoints in its epochs, at its end."""

    def finish(folder, settings, script="train_imagenet.py"):
        run = Run(folder, settings | {"training.checkpoint_minutes": "null"}, script)
        try:
            assert run.end() == 0, run.errors
        finally:
            run.stop()
        return run.run

    return finish


@pytest.fixture(scope="session")
def finished(resnet, uninterrupted, tmp_path_factory):
    """The folder of a run that nothing interrupted."""
    return uninterrupted(tmp_path_factory.mktemp("finished"), resnet)
