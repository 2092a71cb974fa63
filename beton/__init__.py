"""Image data sets for training: one file, read and augmented by JIT-compiled stages as fast as the machine allows.

    beton.write(dataset, "train.beton", workers=8)          # anything with len() and [i] -> (image, label)
    loader = beton.Loader("train.beton", batch_size=256, image="rrc(224)|flip|normalize", workers=8)
    for epoch in range(16):
        for images, labels in loader: ...
    beton.open("train.beton")[17], .labels, .classes

Everything is imported when it is first used: `import beton` needs neither torch nor numba.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.2.0.dev0"
__all__ = ["DamagedSample", "Loader", "UserError", "fields", "modes", "open", "sources", "stages", "write"]

if TYPE_CHECKING:
    from beton.errors import DamagedSample, UserError
    from beton.format import fields, modes
    from beton.format.joined import open_beton as open
    from beton.loading.loader import Loader
    from beton.writing.api import write

_WHERE = {
    "DamagedSample": ("beton.errors", "DamagedSample"),
    "Loader": ("beton.loading.loader", "Loader"),
    "UserError": ("beton.errors", "UserError"),
    "fields": ("beton.format.fields", None),
    "modes": ("beton.format.modes", None),
    "open": ("beton.format.joined", "open_beton"),
    "sources": ("beton.sources", None),
    "stages": ("beton.stages", None),
    "write": ("beton.writing.api", "write"),
}


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module 'beton' has no attribute {name!r}")
    path, attribute = _WHERE[name]
    module = importlib.import_module(path)
    return module if attribute is None else getattr(module, attribute)
