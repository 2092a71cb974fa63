"""The library's own loader: a .beton through JIT stages, in threads of this process."""

from beton.errors import UserError
from beton.loading.base import Pipeline
from beton.loading.loader import Loader


class Beton(Loader):
    """beton.Loader for a task."""

    def __init__(self, task):
        Pipeline.__init__(self, task)

    def open(self) -> None:
        """Open the file; raises UserError where its labels are neither the numbers of classes nor a float for each."""
        super().open()
        kind = self.fields.get("label")
        if "label" not in (self.task.columns or ()) or kind == "int":
            return
        field = self._fields["label"].field
        is_vector = kind in ("array", "tensor") and len(field.shape) == 1 and None not in field.shape
        if not is_vector or "float" not in field.dtype:
            what = f"the field 'label' of {self.task.dataset} is {kind}, not int"
            raise UserError(what, "give a dataset whose labels are the numbers of classes, or a float for each class")
        self.multi_label, count = True, field.shape[0]
        self.classes = self.classes or [str(number) for number in range(count)]
        if len(self.classes) != count:
            what = f"the labels of {self.task.dataset} have {count} numbers, and its card {len(self.classes)} classes"
            raise UserError(what, "write it again with a class for each")


PIPELINE = Beton
