"""Pipelines: small tasks, what an epoch holds, time limits."""

import hashlib
import threading

import torch

from beton.loading.task import Task
from pipelines import open_pipeline

STAGES = "rrc(24, scale=(0.25, 1))|flip|normalize"


def task(dataset, stages: str = STAGES, **changes) -> Task:
    """A small training task."""
    given = {"stages": {"image": stages}, "batch_size": 8, "workers": 2}
    return Task(str(dataset), **(given | changes))


def run_epoch(name: str, dataset, epoch: int = 0, start: int = 0, **changes) -> list:
    """The batches of one epoch, copied: some loaders use their buffers again."""
    pipeline = open_pipeline(name, task(dataset, **changes))
    try:
        return [(images.clone(), labels.clone()) for images, labels in pipeline.batches(epoch, start)]
    finally:
        within(30, pipeline.close)


def print_fingerprint(name: str, dataset: str) -> None:
    """For a process of its own."""
    print(fingerprint(run_epoch(name, dataset, workers=1)), flush=True)


def put_batches(loader, queue) -> None:
    """For a process of its own: the batches of an epoch as arrays."""
    with loader:
        queue.put([tuple(column.numpy() for column in batch) for batch in loader])


def images_of(batches) -> torch.Tensor:
    """All images of an epoch."""
    return torch.cat([images for images, _ in batches])


def labels_of(batches) -> list[int]:
    """All labels of an epoch, in order."""
    return [int(label) for _, labels in batches for label in labels]


def fingerprint(batches) -> str:
    """SHA-256 of every bit of an epoch's batches."""
    digest = hashlib.sha256()
    for images, labels in batches:
        bits = images.permute(0, 2, 3, 1).contiguous().view(torch.uint8)
        digest.update(f"{tuple(images.shape)} {images.dtype} {labels.tolist()}".encode())
        digest.update(bits.numpy().tobytes())
    return digest.hexdigest()


def within(seconds: float, function):
    """The function's result or exception; fails when it takes longer than `seconds`, which means that it hangs."""
    outcome = {}

    def run():
        try:
            outcome["result"] = function()
        except Exception as error:  # noqa: BLE001  raised below, in the test's own thread
            outcome["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"still running after {seconds} s"
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]
