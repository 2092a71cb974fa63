"""Sources: where samples come from, one file each, which names SOURCE a function (data_dir, split, seed, count).

That function opens the source; `seed` and `count` (number of samples) are for those that make their samples. A
source has `len()` and

- `fields`: the kind of each value by name, e.g. {"image": "image", "label": "int"} (files in beton/format/fields),
- `read(i)`: the values of a sample, a tuple in that order; raises OSError if it cannot be read,
- `classes`: names of the classes, which 'label' is an index into; None without,
- `name(i)`: of a sample, for messages,
- `identity(i)`: a text that is another when the sample at i is another one; a resumed write compares it,
- `stored_name(i)`, if it has one: what the card calls the sample, e.g. the path below `data_dir`,
- `processes`, if True: it is not to be used by several threads.
"""

from inspect import signature

from beton.plugins import Plugins

SOURCES = Plugins("source", "beton.sources", "SOURCE", others=("dataset", "subset"))


def open_source(
    name: str, data_dir: str | None, split: str, seed: int = 0, count: int | None = None, empty_classes: str = "error"
):
    """Open the source `name`; raises UserError when it is unknown or does not find its data.

    `empty_classes`: 'error' or 'keep', for sources that may have classes without samples.
    """
    function = SOURCES.get(name)
    more = {"empty_classes": empty_classes} if "empty_classes" in signature(function).parameters else {}
    return function(data_dir, split, seed=seed, count=count, **more)
