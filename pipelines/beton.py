"""The library's own loader: a .beton through JIT stages, in threads of this process."""

from beton.errors import UserError
from beton.loading.base import Pipeline
from beton.loading.loader import Loader


class Beton(Loader):
    """beton.Loader for a task."""

    def __init__(self, task):
        Pipeline.__init__(self, task)

    def open(self) -> None:
        """Open the file; raises UserError where its labels are no classes."""
        super().open()
        kind = self.fields.get("label")
        if "label" in (self.task.columns or ()) and kind != "int":
            what = f"the field 'label' of {self.task.dataset} is {kind}, not int"
            raise UserError(what, "give a dataset whose labels are the numbers of classes")


PIPELINE = Beton
