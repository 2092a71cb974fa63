"""The library's own loader: a .beton through JIT stages, in threads of this process."""

from beton.loading.base import Pipeline
from beton.loading.loader import Loader


class Beton(Loader):
    """beton.Loader for a task."""

    def __init__(self, task):
        Pipeline.__init__(self, task)


PIPELINE = Beton
