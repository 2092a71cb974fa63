"""Host batches to a GPU: copied on a stream of their own while the batch before is in use."""

from collections import deque

import torch

from pipelines.loaders import Task


def to_device(batches, task: Task, normalize=None):
    """Generator of the batches on task.device, one copied ahead.

    `normalize`: the stage that turns uint8 images into numbers on the device, or None. A host batch
    is held until its copy has ended.
    """
    stream = torch.cuda.Stream(task.device)
    in_flight: deque[tuple] = deque()

    def copy(host):
        images, labels = host
        with torch.cuda.stream(stream):
            on_device = images.to(task.device, non_blocking=True)
            if normalize is not None and images.dtype == torch.uint8:
                on_device = normalize.on_device(on_device, task.dtype)
            elif on_device.is_floating_point():
                on_device = on_device.to(task.dtype)
            on_device = on_device.contiguous(memory_format=torch.channels_last)
            labels = labels.to(task.device, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record(stream)
        return on_device, labels, copied, host

    def hand_over(entry):
        images, labels, copied, _ = entry
        now = torch.cuda.current_stream(task.device)
        now.wait_event(copied)
        # The allocator must not give this memory away while the consumer's stream still uses it
        images.record_stream(now)
        labels.record_stream(now)
        held.append(entry[2:])
        while held and held[0][0].query():
            held.popleft()
        return images, labels

    held: deque[tuple] = deque()
    try:
        for host in batches:
            in_flight.append(copy(host))
            if len(in_flight) > 1:
                yield hand_over(in_flight.popleft())
        while in_flight:
            yield hand_over(in_flight.popleft())
    finally:
        stream.synchronize()
        batches.close()
