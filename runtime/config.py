"""The strict edge over fastargs: sections and parameters are declared with it, collected here.

fastargs alone exits 0 on an invalid value, drops misspelt YAML keys, reads `False` as true and lets the
environment override the command line. Here the command line overrides config files, those override the defaults,
the environment is never read, and anything that is not understood is an error of one line.
"""

import difflib
import json
import math
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import yaml
from fastargs import Config, Param, validation
from fastargs.exceptions import ValidationError
from fastargs.validation import And, Checker, Or
from terminaltables import AsciiTable

from beton.errors import UserError, without_secrets

DEFAULT, COMMAND_LINE = "default", "command line"
_SHOWN = 100  # characters shown of each end of a long value


class Bool(Checker):
    """1/0, true/false, yes/no, on/off in any case, and nothing else."""

    def check(self, value):
        return ("0", "false", "no", "off", "1", "true", "yes", "on").index(str(value).lower()) >= 4

    def help(self):
        return "1/0 or true/false"


class _Rule(Checker):
    def __init__(self, convert: Callable[[Any], Any], words: str):
        self.convert, self.words = convert, words

    def check(self, value):
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise TypeError(value)
        return self.convert(value)

    def help(self):
        return self.words


def _int(value: int | float | str) -> int:
    with suppress(ValueError):
        return int(str(value))
    if not float(value).is_integer():
        raise ValueError(value)
    return int(float(value))


def _float(value: int | float | str) -> float:
    if not math.isfinite(float(value)):
        raise ValueError(value)
    return float(value)


def _text(value: int | float | str) -> str:
    str(value).encode()  # arguments that are not UTF-8 could be neither printed nor logged
    if "\0" in str(value):
        raise ValueError(value)
    return str(value)


def _path(value: int | float | str) -> str:
    path = _text(value)
    # No file system accepts longer ones, and Path.exists() raises an OSError for them
    if not path or len(path.encode()) > 2000 or max(len(name.encode()) for name in path.split("/")) > 255:
        raise ValueError(value)
    return path


def _paths(value: int | float | str) -> str:
    for path in str(value).split(","):
        _path(path)
    return str(value)


# The first three reject booleans. INT accepts 16.0 and '1e3' but not 1.5; FLOAT rejects nan and inf; STR
# accepts numbers, as in logging.name: 12355.
INT, FLOAT, STR, BOOL = _Rule(_int, "an int"), _Rule(_float, "a float"), _Rule(_text, "a string"), Bool()
PATH, PATHS = _Rule(_path, "a path"), _Rule(_paths, "paths separated by commas")
# fastargs' own accept 1.5 as an int and any text as true; these replace them wherever they occur.
_STRICT = {validation.Int: INT, validation.Float: FLOAT, validation.Str: STR, validation.Bool: BOOL}


def _strict(checker: Checker) -> Checker:
    checker = validation.get_checker(checker)
    if type(checker) in (And, Or):
        return type(checker)(*map(_strict, checker.checkers))
    return _STRICT.get(type(checker), checker)


def between(checker: Checker, low: float, high: float) -> Checker:
    """`between(FLOAT, 0, 1)`: a float from 0 to 1, bounds included. Every number of a script has bounds."""
    checker = _strict(checker)

    def convert(value):
        number = checker.check(value)
        if not low <= number <= high:
            raise ValueError(value)
        return number

    return _Rule(convert, f"{checker.help()} between {low} and {high}")


def one_of(*values: Any) -> Checker:
    """`one_of('sgd', 'adamw')`: one of these values, matched by their text and returned as declared."""
    texts = {str(value): value for value in values}
    return _Rule(lambda value: texts[str(value)], ("one of " if len(texts) > 1 else "") + ", ".join(texts))


class Settings:
    """The parameters of a script: `settings.data.workers`; None where neither a value nor a default is given.

    `origin` maps 'data.workers' to 'default', to the path of a config file, or to 'command line'.
    """

    def __init__(self, values: dict[str, Any], origin: dict[str, str]):
        self.origin = origin
        self._values = values
        for key, value in values.items():
            *sections, name = key.split(".")
            holder = self
            for section in sections:
                holder = holder.__dict__.setdefault(section, SimpleNamespace())
            setattr(holder, name, value)

    def change(self, key: str, value: Any, origin: str) -> None:
        """Set the parameter 'section.name' to a value that follows from `origin`."""
        section, name = key.split(".")
        setattr(getattr(self, section), name, value)
        self._values[key], self.origin[key] = value, origin

    def flat(self) -> dict[str, Any]:
        """All values, as 'section.name' -> value, for files and other programs: without the secrets of URLs."""
        return {name: without_secrets(v) if isinstance(v, str) else v for name, v in self._values.items()}

    def replaced(self, values: dict[str, Any], origin: str) -> "Settings":
        """The same with other values, as 'section.name' -> value, that come from `origin`."""
        return Settings(self._values | values, self.origin | dict.fromkeys(values, origin))


def parse(config: Config, argv: Sequence[str]) -> Settings:
    """Parse `argv`, and the config files that it names, into the settings of the sections of `config`.

    Raises UserError for every mistake of the user, and SystemExit(0) after printing --help. fastargs' `enable_if` and
    `is_flag` are ignored.
    """
    if "--help" in argv or "-h" in argv:
        print(_help(config), flush=True)
        raise SystemExit(0)
    params = {".".join(path): param for path, param in config.entries.items()}
    files, given = _command_line(argv, params)
    raw, origin = dict.fromkeys(params), dict.fromkeys(params, DEFAULT)
    layers = [(file, _flatten(_read(file), file, params)) for file in files]
    for source, found in [*layers, (COMMAND_LINE, given)]:
        raw |= found
        # null restores the default
        origin |= {key: DEFAULT if value is None else source for key, value in found.items()}
    values = {key: _value(key, param, raw[key], origin[key]) for key, param in params.items()}
    missing = ", ".join(key for key, param in params.items() if param.required and values[key] is None)
    if missing:
        raise _error(f"missing {missing}", "give --section.name=value or set it in a --config-file")
    return Settings(values, origin)


def read_files(config: Config, files: Sequence[str]) -> None:
    """Raise UserError when one of these config files is invalid for `config`. Required parameters may be missing."""
    params = {".".join(path): param for path, param in config.entries.items()}
    for file in files:
        for key, value in _flatten(_read(file), file, params).items():
            _value(key, params[key], value, file)


def run(main: Callable[[list[str]], None], names: Mapping[str, str] = MappingProxyType({})) -> None:
    """Call `main(sys.argv[1:])`; a UserError becomes one line on stderr and exit status 2.

    `names` maps the arguments that messages of the library name to the parameters of the script, e.g.
    {"on_error": "data.on_error"}.
    """
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {one_line(error, names)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def one_line(message: Exception | str, names: Mapping[str, str] = MappingProxyType({})) -> str:
    """A message on one printable line; text from elsewhere may hold line breaks, and torch's messages colours.

    The library writes "set `on_error`='skip'"; with `names` (see run) this becomes "set data.on_error=skip".
    """

    def parameter(match: re.Match) -> str:
        name, value = match.groups()
        return names.get(name, name) + ("" if value is None else f"={value}")

    text = " ".join(str(message).splitlines())
    return _printable(re.sub(r"`(\w+)`(?:='([^']*)')?", parameter, text))


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _value(key: str, param: Param, raw: Any, origin: str) -> Any:
    value = param.default if raw is None else raw
    if value is None:
        return None
    checker = _strict(param.checker)
    try:
        return Param(checker).validate(value)
    except ValidationError:
        if origin == DEFAULT:  # a mistake of the script, not of its user
            raise ValueError(f"the default of {key}, {value!r}, is not {checker.help()}") from None
    where = "" if origin == COMMAND_LINE else f" (in {origin})"
    raise _error(f"{key}={_shown(value)} is not {checker.help()}{where}", f"give {checker.help()}")


def _command_line(argv: Sequence[str], known: Collection[str]) -> tuple[list[str], dict[str, Any]]:
    """The config files, and the values by key; an option given twice has its last value."""
    files, given, words = [], {}, list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            raise _error(f"unexpected argument '{_shown(word)}'", "write options as --section.name=value")
        option, equals, value = word.partition("=")
        names_file = option in ("--config-file", "-C")
        if not names_file and not (option.startswith("--") and option[2:] in known):
            hint = _hint(option.lstrip("-"), [*known, "config-file", "help"], "--")
            raise _error(f"unknown option '{_shown(option)}'", hint)
        if not equals:
            # A separate value may begin with one dash (a negative number), never with two.
            if not words or words[0].startswith("--") or words[0].partition("=")[0] == "-C":
                raise _error(f"{option} needs a value", f"write {option}=VALUE")
            value = words.pop(0)
        if names_file:
            files.append(value)
        else:
            given[option[2:]] = None if value == "null" else value
    return files, given


class _TextLoader(yaml.SafeLoader):
    """YAML whose numbers stay text, so that a file and the command line mean the same.

    PyYAML reads 5e-5 as text, 12:30 as 750, 010 as 8 and 1.10 as 1.1; the checker of each parameter converts
    instead. Only true and false are booleans; on, off, yes and no stay text.
    """

    def compose_mapping_node(self, anchor):
        # PyYAML keeps only the last of two equal keys: a section written twice would lose its first half.
        node = super().compose_mapping_node(anchor)
        names = [key.value for key, _ in node.value]
        for at, (key, _) in enumerate(node.value):
            if key.value in names[:at]:
                raise yaml.MarkedYAMLError(None, None, f"'{key.value}' is given twice", key.start_mark)
        return node

    def construct_boolean(self, node):
        text = self.construct_scalar(node)
        return {"true": True, "false": False}.get(text.lower(), text)


for _tag in ("int", "float", "timestamp"):
    _TextLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", _TextLoader.construct_scalar)
_TextLoader.add_constructor("tag:yaml.org,2002:bool", _TextLoader.construct_boolean)


def _json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"'{max(names, key=names.count)}' is given twice")
    return dict(pairs)


def _read(file: str) -> dict:
    """The mapping in a config file, its numbers as text."""
    suffix = Path(file).suffix.lower()
    if suffix not in (".yaml", ".yml", ".json"):  # not opened: it may be a dataset of 100 GB
        raise _error(f"config file '{_shown(file)}' is not a .yaml, .yml or .json file", "give one that is")
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
        if suffix == ".json":
            hooks = dict.fromkeys(("parse_int", "parse_float", "parse_constant"), str)
            content = json.loads(text, object_pairs_hook=_json_object, **hooks)
        else:
            content = yaml.load(text, Loader=_TextLoader)
    except OSError as error:
        raise _error(f"config file '{_shown(file)}' cannot be read ({error.strerror})", "check its path") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        why = f"line {mark.line + 1}: {error.problem}" if mark else " ".join(str(error).split())
        raise _error(f"config file '{file}' is not valid {suffix[1:]} ({why})", "correct it") from error
    if not isinstance(content, dict | None):
        raise _error(f"config file '{file}' has no sections at its top level", "write section: {name: value}")
    return content or {}


def _flatten(mapping: dict, file: str, known: Collection[str], prefix: str = "") -> dict[str, Any]:
    """Nested and dotted keys alike as 'section.name' -> value."""
    sections = {key[:end] for key in known for end, letter in enumerate(key) if letter == "."}
    found = {}
    for name, value in mapping.items():
        key = f"{prefix}{name}"
        if key in known:
            inner = {key: value}
        elif key not in sections:
            raise _error(f"unknown key '{_shown(key)}' in {file}", _hint(key, [*known, *sections]))
        elif not isinstance(value, dict | None):
            raise _error(f"'{key}' in {file} is a section, not a value", f"write {key}: {{name: value}}")
        else:
            inner = _flatten(value or {}, file, known, f"{key}.")
        for twice in found.keys() & inner.keys():
            raise _error(f"'{twice}' is given twice in {file}", "keep one of them")
        found |= inner
    return found


def _hint(key: str, names: Sequence[str], dashes: str = "") -> str:
    near = difflib.get_close_matches(key, names, 1)
    near = near or [name for name in names if name.split(".")[-1] == key.split(".")[-1]]
    return f"did you mean '{dashes}{near[0]}'?" if near else "see --help for the known ones"


def _error(what: str, to_do: str) -> UserError:
    """A UserError on one line, although values and keys may hold line breaks."""
    return UserError(_printable(what), _printable(to_do))


def _shown(value: Any) -> str:
    """A value for an error message; the middle of a long one is omitted."""
    text = str(value)
    return text if len(text) <= 2 * _SHOWN else f"{text[:_SHOWN]}...{text[-_SHOWN:]}"


def _help(config: Config) -> str:
    """The text of --help: a table for each section. fastargs' own reads sys.argv, the environment and config files."""
    text = f"usage: {Path(sys.argv[0]).name} [--config-file FILE]... [--section.name=value]...\n\n"
    text += "The command line overrides the config files (.yaml, .yml, .json), and a later file an earlier one.\n"
    for namespace, paths in config.sections_to_entries.items():
        rows = [["Name", "Default", "Constraint", "Description"]]
        for path in paths:
            param = config.entries[path]
            default = ("required" if param.required else "") if param.default is None else str(param.default)
            rows.append([".".join(path), default, _strict(param.checker).help(), param.desc])
        title = f"{'.'.join(namespace)}: {config.sections[namespace].desc or ''}"
        text += f"\n{title}\n{AsciiTable(rows).table}\n"
    return text
