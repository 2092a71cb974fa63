"""Which operations of torch a function calls: what waits for a GPU shows here though there is none."""

from collections.abc import Callable

from torch.utils._python_dispatch import TorchDispatchMode


class _Count(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def operations(function: Callable) -> list[str]:
    """Names such as "aten.addcmul.out", in order."""
    with _Count() as count:
        function()
    return count.names
