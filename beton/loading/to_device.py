"""Host batches to a GPU: copied on a stream of their own while the batch before is in use."""

import functools
from collections import deque
from concurrent.futures import ThreadPoolExecutor

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
        made = [mapped(function, part) for part in column]
        return type(column)(*made) if hasattr(column, "_fields") else tuple(made)
    if isinstance(column, list):
        return [function(row) if isinstance(row, torch.Tensor) else row for row in column]
    return column


def tensors_of(column) -> list:
    """The tensors in a column."""
    found = []
    mapped(found.append, column)
    return found


def to_device(batches, task, finish=None, arrived=None, make=None):
    """Generator of the batches (tuples of tensors) on task.device, copied one ahead if the next host batch is there.

    A column is a tensor, a list or a tuple of such, or what stays on the host. `finish`: for each column None, or a
    pair: a function that does on the device what is left to do (normalize), or None; and the place of a further column
    whose rows on the host that function gets as `drawn`, or None. Further columns are not yielded. Without `finish`
    floats get the type of the task. A host batch is held until its copy has ended. `arrived()` is called for each
    batch, by the thread that asks for it, before its stream waits for the copy. `make`: a function that gives the
    columns of a host batch in place of all this, on the stream.
    """
    stream = _stream(str(task.device))
    # Host batches are waited for in a thread, so that one that is copied already is handed over meanwhile
    reader = ThreadPoolExecutor(1, thread_name_prefix="beton-to-device")
    in_flight: deque[tuple] = deque()
    held: deque[tuple] = deque()
    try:
        coming = reader.submit(next, batches, None)
        while True:
            if in_flight and not coming.done():
                yield _hand_over(in_flight.popleft(), task, held, arrived)
            host = coming.result()
            if host is None:
                break
            coming = reader.submit(next, batches, None)
            in_flight.append(_copied(host, task, finish, stream, make))
            del host  # held by what is in flight, and no longer
            if len(in_flight) > 1:
                yield _hand_over(in_flight.popleft(), task, held, arrived)
        while in_flight:
            yield _hand_over(in_flight.popleft(), task, held, arrived)
    finally:
        reader.shutdown()
        stream.synchronize()
        batches.close()


def _copied(host: tuple, task, finish, stream, make) -> tuple:
    """(the batch on the device, the event of its copy, what that needs on the host)."""
    if make is not None:
        with torch.cuda.stream(stream):
            columns = make(host)
            copied = torch.cuda.Event()
            copied.record(stream)
        return columns, copied, host
    count = len(host) if finish is None else len(finish)
    columns: list = [None] * count
    with torch.cuda.stream(stream):
        # Labels first: they would wait behind the images
        for place in sorted(range(count), key=lambda place: sum(t.nbytes for t in tensors_of(host[place]))):
            function, companion = (finish[place] if finish else None) or (None, None)
            if function is not None and companion is not None:
                function = functools.partial(function, drawn=host[companion])
            copy = functools.partial(_on_device, task=task, function=function, as_task=finish is None)
            columns[place] = mapped(copy, host[place])
        copied = torch.cuda.Event()
        copied.record(stream)
    return columns, copied, host


def _on_device(tensor: torch.Tensor, task, function, as_task: bool) -> torch.Tensor:
    tensor = tensor.to(task.device, non_blocking=True)
    if function is not None and tensor.dtype == torch.uint8:
        tensor = function(tensor)
    elif as_task and tensor.is_floating_point():
        tensor = tensor.to(task.float_dtype)
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _hand_over(entry: tuple, task, held: deque, arrived) -> list:
    """The columns, once the consumer's stream waits for their copy; the host's are `held` until that has ended."""
    columns, copied, _ = entry
    if arrived is not None:
        arrived()
    now = torch.cuda.current_stream(task.device)
    now.wait_event(copied)
    there = torch.device(task.device).type
    for tensor in (tensor for column in columns for tensor in tensors_of(column)):
        # The allocator must not give this memory away while the consumer's stream still uses it
        if tensor.device.type == there:  # a column may have stayed on the host
            tensor.record_stream(now)
    held.append(entry[1:])
    while held and held[0][0].query():
        held.popleft()
    return columns
