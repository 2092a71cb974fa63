"""Host batches to a GPU: copied on a stream of their own while the batch before is in use."""

import functools
from collections import deque

import torch


@functools.cache
def _stream(device: str) -> "torch.cuda.Stream":
    """One for all epochs: memory that was allocated for a stream is used again for that stream only."""
    return torch.cuda.Stream(device)


def to_device(batches, task, finish=None, arrived=None):
    """Generator of the batches (tuples of tensors) on task.device, one copied ahead.

    `finish`: for each column a function that does on the device what is left to do (normalize), or None. A host
    batch is held until its copy has ended. `arrived()` is called for each batch, by the thread that asks for it, before
    its stream waits for the copy.
    """
    stream = _stream(str(task.device))
    in_flight: deque[tuple] = deque()

    def on_device(tensor, left):
        tensor = tensor.to(task.device, non_blocking=True)
        if left is not None and tensor.dtype == torch.uint8:
            tensor = left(tensor)
        elif tensor.is_floating_point():
            tensor = tensor.to(task.float_dtype)
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor

    def copy(host):
        tensors, left = [None] * len(host), finish or [None] * len(host)
        with torch.cuda.stream(stream):
            # Labels first: they would wait behind the images
            for place in sorted(range(len(host)), key=lambda place: host[place].nbytes):
                tensors[place] = on_device(host[place], left[place])
            copied = torch.cuda.Event()
            copied.record(stream)
        return tensors, copied, host

    def hand_over(entry):
        tensors, copied, _ = entry
        if arrived is not None:
            arrived()
        now = torch.cuda.current_stream(task.device)
        now.wait_event(copied)
        for tensor in tensors:
            # The allocator must not give this memory away while the consumer's stream still uses it
            tensor.record_stream(now)
        held.append(entry[1:])
        while held and held[0][0].query():
            held.popleft()
        return tensors

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
