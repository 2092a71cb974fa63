"""The pipelines that can feed a trainer, one file each, which names PIPELINE a subclass of beton.loading.base.Pipeline.

Every one gets the same task and yields the same: images and labels. `beton` is ours; `ffcv` is FFCV 1.0.2's own.
"""

import importlib.util
import os

from beton.errors import UserError
from beton.loading.base import Pipeline
from beton.loading.task import Task
from beton.plugins import Plugins

PIPELINES = Plugins("pipeline", "pipelines", "PIPELINE")
_NEW_NAMES = {"ffcv_stock": "ffcv"}


def get(name: str) -> type[Pipeline]:
    """The pipeline `name`, whether what it needs is installed or not; raises UserError for an unknown name."""
    if name in _NEW_NAMES:
        raise UserError(f"there is no pipeline '{name}'", f"its name is '{_NEW_NAMES[name]}' now")
    return PIPELINES.get(name)


def missing(name: str) -> list[str]:
    """Packages that the pipeline `name` needs and that are not installed; raises UserError for an unknown name."""
    return [package for module, package in get(name).needs.items() if not _is_there(module)]


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that holds it
        return False


def open_pipeline(name: str, task: Task) -> Pipeline:
    """Open the pipeline `name` for a task; raises UserError when it lacks a package or cannot do the task."""
    pipeline, lacks = get(name), missing(name)
    if lacks:
        raise UserError(f"the pipeline '{name}' needs {', '.join(lacks)}", f"pip install {' '.join(lacks)}")
    if task.on_error not in pipeline.on_error:
        raise UserError(f"the pipeline '{name}' cannot {task.on_error} damaged samples", "set `on_error`='raise'")
    if task.verify and not pipeline.verifies:
        raise UserError(f"the pipeline '{name}' has no checksums to compare with", "set `verify`=0")
    if task.cache_gb is not None and pipeline.pages is Pipeline.pages and not pipeline.is_ceiling:
        what = f"the pipeline '{name}' does not read in pages, so `cache_gb`={task.cache_gb:g} says nothing to it"
        raise UserError(what, "leave out `cache_gb`, or set `pipeline`='beton'")
    if pipeline.reads == "photos" and os.path.isfile(task.dataset):
        to_do = "give the folder that holds the class folders, or `pipeline`='beton'"
        raise UserError(f"the pipeline '{name}' reads photo folders, and {task.dataset} is a file", to_do)
    if pipeline.reads == "beton" and os.path.isdir(task.dataset):
        to_do = "write a .beton of it, or set `pipeline`='torch'"
        raise UserError(f"the pipeline '{name}' reads .beton files, and {task.dataset} is a folder", to_do)
    return pipeline(task)
