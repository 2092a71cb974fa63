"""Nonsense for every kind of parameter, chosen by what its declaration says."""

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from fastargs import Config

from runtime.config import _strict
from tests.support.scripts import ROOT

IMAGENET, TRANSFORMERS, WRITE, PROFILE = (
    "train_imagenet.py", "train_transformers.py", "write_dataset.py", "profile_loaders.py",
)  # fmt: skip
(
    AGAINST, CALLABLES, CEILING, FORMATS, GPU, MODES, SERIAL, SOAK, VIEWS, CACHED, QUASI, SCALING, FFCV_API,
    CLOCK_COST, PLAN_CHECK, VIT_LEVIT,
) = (
    f"benchmarks/{name}.py"
    for name in (
        *("against_ffcv", "callables", "ceiling", "block_formats", "gpu", "storage_modes", "serial_cost", "soak"),
        *("views", "cached_ranks", "quasi_random", "scaling", "ffcv_api", "clock_cost", "plan_check", "vit_levit"),
    )
)  # fmt: skip
LONG = "x" * 10_000
_NO_NUMBERS = [
    "", " ", "abc", "1,5", "1 2", "1:30", "--", "nan", "NaN", "inf", "-inf", "1e400", "-1e400", "true", "None",
    "[1]", "{a: 1}", "0x10", "1.2.3", "\0", "1\0", "½", "1\n2", "\udcff", "9" * 5000, LONG,
]  # fmt: skip
_HUGE = [10**18, -(10**18), 10**400, -(10**400)]
_NO_TEXTS = ["\0", "a\0b", "\udcff", "a\udcffb"]
_NO_PATHS = ["", *_NO_TEXTS, LONG, "a/" + LONG, "ab/" * 3000, "ü" * 200]


def declared() -> dict[str, Config]:
    """Every script that declares its parameters, and its declaration."""
    scripts = [*ROOT.glob("*.py"), *ROOT.glob("benchmarks/*.py")]
    names = [str(path.relative_to(ROOT)) for path in sorted(scripts) if "def declare()" in path.read_text()]
    return {name: importlib.import_module(name.removesuffix(".py").replace("/", ".")).declare() for name in names}


def parameters(config: Config) -> dict[str, str]:
    """What each parameter takes, in the words of its declaration: 'training.epochs' -> 'an int between 1 and 9'."""
    return {".".join(path): _strict(param.checker).help() for path, param in config.entries.items()}


def required(config: Config) -> list[str]:
    """The parameters that have to be given."""
    return [".".join(path) for path, param in config.entries.items() if param.required]


def good_value(takes: str) -> str:
    """A value that parsing accepts."""
    if bounds := _bounds(takes):
        return f"{bounds[0]:g}"
    if takes.startswith("one of "):
        return takes.removeprefix("one of ").split(", ")[0]
    return "1"


def refused_texts(takes: str) -> list[str]:
    """Texts that parsing must refuse. Raises ValueError for a kind of parameter that there is no nonsense for."""
    if bounds := _bounds(takes):
        beyond = [bounds[0] - 1, bounds[1] + 1, 2 * bounds[1] + 1]
        fractions = [bounds[0] + 0.5, f"{bounds[0]:.0f}.5e0"] if takes.startswith("an int") else []
        return [*_NO_NUMBERS, *map(str, _HUGE), *map(str, beyond), *map(str, fractions)]
    if takes.startswith("one of "):
        choices = takes.removeprefix("one of ").split(", ")
        return ["", "nonsense", "-1", "[sgd]", *_NO_TEXTS, LONG, choices[0].upper(), f"{choices[0]} ", takes]
    if takes == "1/0 or true/false":
        return ["", "2", "-1", "1.0", "maybe", "y", "tru", "nan", "[1]", *_NO_TEXTS, LONG, str(10**400)]
    if takes == "a path":
        return _NO_PATHS
    if takes == "paths separated by commas":
        return [*_NO_PATHS, ",", "a,", ",a", "a,,b", f"a,{LONG}"]
    if takes == "a string":
        return _NO_TEXTS
    raise ValueError(f"no nonsense is known for '{takes}': every number needs two bounds")


def refused_values(takes: str) -> Iterator[str]:
    """YAML for values of the wrong type."""
    yield from ("[1, 2]", "[]", "{a: 1}", "{}", "!!binary aGk=", "!!set {a, b}")
    if takes != "1/0 or true/false":
        yield from ("true", "False")
    if _bounds(takes):
        yield from (".nan", ".inf", "-.inf", "~x", "1_0x", "2020-01-01", "!!str x")
    yield from ("!!python/object/apply:os.getcwd []", "!unknown 1", "*nowhere")


def _bounds(takes: str) -> tuple[float, float] | None:
    found = re.fullmatch(r"an? (int|float) between (-?[\d.]+) and (-?[\d.]+)", takes)
    if not found:
        return None
    kind = {"int": int, "float": float}[found[1]]
    return kind(found[2]), kind(found[3])


def in_yaml(folder: Path, key: str, value: str) -> str:
    """The option that names a config file which sets `key` to `value`, which is YAML."""
    path = folder / "given.yaml"
    path.write_text(f"{key}: {value}\n")
    return f"--config-file={path}"


def quoted(text: str) -> str:
    """A text as YAML (and JSON) has it."""
    return json.dumps(text)
