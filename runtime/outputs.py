"""Checks of where results will be written, made before the work whose results they are."""

import os
import tempfile
from pathlib import Path

from beton.errors import UserError


def make_folder(path: Path) -> None:
    """Make a folder if it does not exist; raises UserError when it cannot be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f"cannot write to {path} ({error.strerror})", "name another folder") from error


def check_file(path: Path) -> None:
    """Raise UserError when a file cannot be written."""
    if os.path.isdir(path):  # Path.is_dir raises PermissionError in folders that are not searchable
        raise UserError(f"{path} is a folder", "give the name of a file")
    if not os.path.isdir(path.parent):
        raise UserError(f"there is no folder {path.parent}", "make it, or give another name")
    probe = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror})", "name another file") from error
