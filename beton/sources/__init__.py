"""Sources: where samples come from, one file each, which names SOURCE a function (data_dir, split, seed, count).

That function opens the source; `seed` and `count` (number of samples) are for those that make their samples. It may
have `of`, for sources of several data sets: what is behind the colon in `torchvision:Flowers102`. A source has
`len()` and

- `fields`: the kind of each value by name, e.g. {"image": "image", "label": "int"} (files in beton/format/fields),
- `read(i)`: the values of a sample, a tuple in that order; raises OSError if it cannot be read,
- `classes`: names of the classes, which 'label' is an index into; None without,
- `name(i)`: of a sample, for messages,
- `identity(i)`: a text that is another when the sample at i is another one; a resumed write compares it,
- `stored_name(i)`, if it has one: what the card calls the sample, e.g. the path below `data_dir`,
- `label(i)`, if it is known without reading the sample: for writing the samples of some classes only,
- `processes`, if True: it is not to be used by several threads.
"""

from inspect import signature

from beton.errors import UserError
from beton.plugins import Plugins

SOURCES = Plugins("source", "beton.sources", "SOURCE", others=("dataset", "subset"))


def open_source(
    name: str, data_dir: str | None, split: str, seed: int = 0, count: int | None = None, empty_classes: str = "error"
):
    """Open the source `name` ('imagefolder', 'torchvision:Flowers102'); raises UserError when it is unknown or does not
    find its data.

    `empty_classes`: 'error' or 'keep', for sources that may have classes without samples.
    """
    name, _, of = name.partition(":")
    function = SOURCES.get(name)
    given = {"empty_classes": empty_classes, "of": of}
    known = signature(function).parameters
    if of and "of" not in known:
        raise UserError(f"the source '{name}' is one data set", f"leave out ':{of}'")
    more = {option: value for option, value in given.items() if option in known}
    return function(data_dir, split, seed=seed, count=count, **more)
