"""Nonsense for every kind of parameter, told by what the declaration says of it; scripts run in this process."""

import contextlib
import importlib
import io
import json
import re
import signal
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from conftest import ROOT
from fastargs import Config

from runtime.config import _strict, run

LONG = "x" * 10_000
_NO_NUMBERS = [
    "", " ", "abc", "1,5", "1 2", "1:30", "--", "nan", "NaN", "inf", "-inf", "1e400", "-1e400", "true", "None",
    "[1]", "{a: 1}", "0x10", "1.2.3", "\0", "1\0", "½", "1\n2", "\udcff", "9" * 5000, LONG,
]  # fmt: skip
_HUGE = [10**18, -(10**18), 10**400, -(10**400)]
_NO_TEXTS = ["\0", "a\0b", "\udcff", "a\udcffb"]
_NO_PATHS = ["", *_NO_TEXTS, LONG, "a/" + LONG, "ab/" * 3000, "ü" * 200]


@dataclass(frozen=True)
class End:
    """How a script ended."""

    status: int
    out: str
    err: str

    def complaint(self, *words: str) -> str:
        """What is wrong with it, if it should have been a user error that holds these words; or nothing."""
        lines = self.err.splitlines()
        if self.status != 2:
            return f"status {self.status}: {self.out[-300:]} {self.err[-300:]}"
        if len(lines) != 1 or not self.err.endswith("\n"):
            return f"{len(lines)} lines: {self.err[-300:]}"
        what, _, to_do = lines[0].removeprefix("error: ").partition("; ")
        if not lines[0].startswith("error: ") or not what.strip() or not to_do.strip():
            return f"it is not `error: what; what to do`: {lines[0][:300]}"
        if not lines[0].isprintable():
            return f"it has letters that cannot be printed: {lines[0][:300]!r}"
        return "".join(f"it does not say {word}: {lines[0][:300]}" for word in words if word not in lines[0])


def end_of(script: str, *argv: str) -> End:
    """Run a script, such as "benchmarks/storage_modes.py", in this process, as its last line does it."""
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    out, err, status = io.StringIO(), io.StringIO(), 0
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    words = mock.patch.object(sys, "argv", [script, *argv])
    try:
        with words, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            run(module.main)
    except SystemExit as end:
        status = end.code
    except Exception as error:  # noqa: BLE001  told with the others
        status = 1
        err.write(f"Traceback: {error!r} at {traceback.extract_tb(error.__traceback__)[-1]}\n")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return End(status or 0, out.getvalue(), err.getvalue())


def wrong(cases) -> str:
    """What is wrong with the ends of (script, arguments, words that the error must hold), a line each."""
    found = []
    for script, argv, words in cases:
        complaint = end_of(script, *argv).complaint(*words)
        if complaint:
            found.append(f"{complaint} - {script} {' '.join(argv)!r:.1000}")
    return "\n".join(found)


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
    if takes == "paths with commas between":
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


def options(told: dict) -> list[str]:
    """{'a.b': 1} as a command line."""
    return [f"--{key}={value}" for key, value in told.items()]


def in_yaml(folder: Path, key: str, value: str) -> str:
    """The option that names a config file which sets `key` to `value`, which is YAML."""
    path = folder / "given.yaml"
    path.write_text(f"{key}: {value}\n")
    return f"--config-file={path}"


def quoted(text: str) -> str:
    """A text as YAML (and JSON) has it."""
    return json.dumps(text)
