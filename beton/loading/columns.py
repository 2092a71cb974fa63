"""The columns of a batch: which fields, with what stages, and the names of the classes."""

from typing import Any

from beton.errors import UserError
from beton.format.file import BetonFile
from beton.loading.task import Task


def as_text(name: str, given: Any) -> str | None:
    """The stages of a field as one text."""
    if given is None or isinstance(given, str):
        return given
    if isinstance(given, (list, tuple)) and given and all(isinstance(part, str) for part in given):
        return "|".join(given)
    raise UserError(f"`{name}`={given!r} is neither text nor a list of text", "give stages, e.g. 'rrc(224)|flip'")


def wanted(file: BetonFile, task: Task) -> list[str]:
    """The columns of a batch, in order; raises UserError for one that the file has not."""
    names = task.columns
    if names is None:
        names = [n for n, column in file.columns.items() if column.field.loads and task.stages.get(n, "") is not None]
    for name in [*names, *task.stages]:
        if name not in file.columns:
            what = f"{file.path} has no field '{name}'; it has {', '.join(file.columns)}"
            raise UserError(what, "name one of these")
    if not names:
        raise UserError(f"no field of {file.path} is wanted", "name one in `columns`")
    return list(names)


def class_names(file: BetonFile) -> list[str]:
    """Names of the classes, after checking that every label is that of one; numbers where there are no names."""
    if file.labels is None:
        return file.classes or []
    wrong = file.wrong_labels()
    if len(wrong):
        raise UserError(file.label_error(wrong[0]), "write the dataset again")
    return file.classes or [str(c) for c in range(int(file.labels.max()) + 1)]
