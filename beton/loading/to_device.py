"""Host batches to a GPU: copied on a stream of their own while the batch before is in use."""

import functools
from collections import deque

import torch


@functools.cache
def _stream(device: str) -> "torch.cuda.Stream":
    """One for all epochs: memory that was allocated for a stream is used again for that stream only."""
    return torch.cuda.Stream(device)


def mapped(function, column):
    """A column with the function's results in place of its tensors."""
    if isinstance(column, torch.Tensor):
        return function(column)
    if isinstance(column, tuple):
        return type(column)(*(mapped(function, part) for part in column))
    if isinstance(column, list):
        return [function(row) if isinstance(row, torch.Tensor) else row for row in column]
    return column


def tensors_of(column) -> list:
    """The tensors in a column."""
    found = []
    mapped(found.append, column)
    return found


def to_device(batches, task, finish=None):
    """Generator of the batches (tuples of tensors) on task.device, one copied ahead.

    A column is a tensor, a list or a tuple of such, or what stays on the host. `finish`: for each column a function
    that does on the device what is left to do (normalize), or None; without it, floats get the type of the task. A host
    batch is held until its copy has ended.
    """
    stream = _stream(str(task.device))
    in_flight: deque[tuple] = deque()

    def on_device(tensor, left):
        tensor = tensor.to(task.device, non_blocking=True)
        if left is not None and tensor.dtype == torch.uint8:
            tensor = left(tensor)
        elif finish is None and tensor.is_floating_point():
            tensor = tensor.to(task.float_dtype)
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor

    def copy(host):
        tensors, left = [None] * len(host), finish or [None] * len(host)
        with torch.cuda.stream(stream):
            # Labels first: they would wait behind the images
            for place in sorted(range(len(host)), key=lambda place: sum(t.nbytes for t in tensors_of(host[place]))):
                tensors[place] = mapped(lambda tensor, left=left[place]: on_device(tensor, left), host[place])
            copied = torch.cuda.Event()
            copied.record(stream)
        return tensors, copied, host

    def hand_over(entry):
        tensors, copied, _ = entry
        now = torch.cuda.current_stream(task.device)
        now.wait_event(copied)
        for column in tensors:
            for tensor in tensors_of(column):
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
