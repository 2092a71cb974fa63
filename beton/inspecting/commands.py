"""The commands of `python -m beton`. Exit status: 0; 1 where check or compare found something; 2 for errors."""

import contextlib
import difflib
import sys
from collections.abc import Callable, Iterable

import numpy as np

from beton.errors import UserError
from beton.format.card import card_path
from beton.format.file import BetonFile
from beton.format.joined import JoinedFile, open_beton
from beton.format.records import VERSION

_MOST_NAMED = 20

HELP = """usage: {program} check FILE             read everything, name every damaged sample
       {program} info FILE              print what is inside
       {program} preview FILE [OUT.png] draw a contact sheet; default: FILE's name + .png, in this folder
       {program} compare FILE FOLDER    is the file still what the photo folder holds?
       {program} export FILE FOLDER     write the photos as files: class folders, or --format=webdataset
       {program} merge OUT FILE ...     write several files as one
       {program} split FILE N [FOLDER]  write N parts of a file, beside it or into a folder
       {program} fetch URL              have a file, or several, from elsewhere in a folder: --cache=FOLDER

FILE may be several files that are read as one: a pattern in quotes, such as 'train-*.beton' (not for split).

Exit status: 0; 1 where check found damaged samples or compare found differences; 2 for errors."""


def main(argv: list[str], program: str = "python -m beton") -> int:
    """Run a command (its first word is one of COMMANDS); returns the exit status. Raises UserError."""
    text = HELP.format(program=program)
    if not argv or {"-h", "--help"} & set(argv):
        print(text)
        return 0 if argv else 2
    name, *arguments = argv
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, 1)
        raise UserError(
            f"unknown command '{name}'" + (f" (did you mean '{close[0]}'?)" if close else ""),
            f"use one of {', '.join(COMMANDS)}",
        )
    arguments, options = _options(name, arguments, program)
    command, fewest, most = COMMANDS[name]
    if not fewest <= len(arguments) <= most:
        line = next(line for line in text.splitlines() if f"{program} {name} " in line)
        usage = " ".join(line.removeprefix("usage:").split(f"{name} ")[1].split("  ")[0].split()[:most])
        what = f"'{name}' takes {usage}, not {len(arguments)} words"
        raise UserError(what, f"write {program} {name} {usage}")
    return command(*arguments, **options)


def _options(name: str, words: list[str], program: str) -> tuple[list[str], dict[str, str]]:
    """What is no option among the words behind a command, and its options: --NAME=VALUE or --NAME VALUE."""
    arguments, options, words = [], {}, list(words)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            arguments.append(word)
            continue
        option, equals, value = word[2:].partition("=")
        if option not in OPTIONS.get(name, ()):
            raise UserError(f"{name} has no option '{word}'", f"see {program} --help")
        if not equals and not words:
            raise UserError(f"'{word}' needs a value", f"write {word}=VALUE")
        options[option] = value if equals else words.pop(0)
    return arguments, options


def check_command(path: str) -> int:
    """Read every sample; name those that are damaged."""
    from beton.inspecting.check import damaged_samples, is_the_cards, needs_decoding

    with open_beton(path) as file:
        decode, checksums = needs_decoding(file), file.checksums is not None
        how = "every checksum compared" if checksums else "no checksums: every sample decoded, which shows only a part"
        how += ", every sample decoded" if checksums and decode else ""
        damaged = list(damaged_samples(file, decode))
        _print_some(f"damaged: {file.describe(e.sample)}: {e.why}" for e in damaged)
        wrong = file.wrong_labels().tolist()
        _print_some(f"wrong: {file.label_error(sample)}" for sample in wrong)
        count, same = len(file), is_the_cards(file)
    what = f"{len(damaged)} of {count} samples {'is' if len(damaged) == 1 else 'are'} damaged"
    what = what if damaged else f"all {count} samples are good"
    what += f", {len(wrong)} labels are wrong" if wrong else ""
    print(f"=> {path}: {what} (tables checked, {how})")
    if not same and not damaged:
        print("   the file is not the one of its card (the SHA-256 differs): bytes beside the samples have changed")
    if damaged:
        print("   write the dataset again, or load it with `on_error`='skip' or 'substitute'")
    return 1 if damaged or wrong or not same else 0


def _print_some(lines: Iterable[str]) -> None:
    """Print at most _MOST_NAMED lines, and how many more there are."""
    lines = list(lines)
    print(*lines[:_MOST_NAMED], sep="\n", end="\n" if lines else "")
    if len(lines) > _MOST_NAMED:
        print(f"... and {len(lines) - _MOST_NAMED} more")


def compare_command(path: str, folder: str) -> int:
    """Compare with a photo folder; name what differs."""
    from beton.inspecting.compare import compare

    differences, what = compare(path, folder)
    _print_some(f"differs: {line}" for line in differences)
    found = f"{len(differences)} differences" if differences else "no difference"
    print(f"=> {path} and {folder}: {found} ({what})")
    return 1 if differences else 0


def preview_command(path: str, out: str | None = None) -> int:
    """Draw a contact sheet."""
    from beton.inspecting.preview import preview

    written, count = preview(path, out)
    print(f"=> {written}: {count} samples of {path}")
    return 0


def export_command(path: str, folder: str, format: str = "folders") -> int:
    """Write the photos as files."""
    from beton.inspecting.export import export

    with open_beton(path) as file:
        print(f"=> {folder}: {export(file, folder, format)}")
    return 0


def merge_command(out: str, *paths: str) -> int:
    """Write several files as one."""
    from beton.inspecting.merge import merge

    card = merge(list(paths), out)
    print(f"=> {out}: {card['num_samples']} samples, {_megabytes(card['bytes'])}")
    return 0


def split_command(path: str, count: str, folder: str | None = None) -> int:
    """Write the parts of a file."""
    from beton.inspecting.merge import split

    if not count.isdecimal() or not 2 <= int(count) < 10**6:
        raise UserError(f"'{count}' is not a number of parts", "give a whole number from 2 on")
    written = split(path, int(count), folder)
    print(f"=> {written[0]} to {written[-1]}: the {len(written)} parts of {path}")
    return 0


def fetch_command(url: str, cache: str | None = None) -> int:
    """Fetch files, unless they are there; print their paths."""
    from beton.remote.arrival import fetch

    with contextlib.redirect_stdout(sys.stderr):  # what is printed are the paths alone
        paths = fetch(url, cache)
    print(*paths, sep="\n")
    return 0


def info_command(path: str) -> int:
    """Print what is inside."""
    with open_beton(path) as file:
        fields = ", ".join(f"{name} ({kind})" for name, kind in file.fields.items())
        parts = f" in {len(file.parts)} files" if isinstance(file, JoinedFile) else ""
        print(f"=> {path}: FFCV format {VERSION}, {len(file)} samples{parts}, {_megabytes(file.bytes)}")
        _line("fields", f"{fields}; pages of {file.page_size / 2**20:g} MiB")
        for column in file.columns.values():
            for name, text in column.field.summary(column.records, column.sizes).items():
                _line(name or column.name, text)
        _print_classes(file)
        if file.card is None:
            _line("card", f"none ({card_path(path)}): no class names, parameters and checksums")
        else:
            _print_card(file.card)
    return 0


def _print_classes(file: BetonFile) -> None:
    if file.labels is None:
        return
    labels, first, counts = np.unique(file.labels, return_index=True, return_counts=True)
    some = zip(first[:10].tolist(), counts[:10].tolist(), strict=True)
    named = ", ".join(f"{file.class_of(sample)}: {count}" for sample, count in some)
    _line("classes", f"{len(labels)} ({named}{', ...' if len(labels) > 10 else ''})")


def _print_card(card: dict) -> None:
    """What is known from the card alone; any key may be missing."""
    for key in ("parameters", "source", "versions"):
        if isinstance(card.get(key), dict):
            _line(key, ", ".join(f"{name}={value}" for name, value in card[key].items()))
    if card.get("skipped"):
        _line("left out", f"{len(card['skipped'])} samples that could not be read")
    if card.get("passed_through"):
        _line("passed on", f"{card['passed_through']} JPEGs as they were")
    _line("checksums", "of every sample and of the tables" if card.get("checksums") else "none")
    if card.get("sha256"):
        _line("SHA-256", card["sha256"])


def _line(name: str, text: str) -> None:
    print(f"   {name + ':':<11} {text}")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


# Function, and how many arguments it takes
COMMANDS: dict[str, tuple[Callable[..., int], int, int]] = {
    "check": (check_command, 1, 1),
    "info": (info_command, 1, 1),
    "preview": (preview_command, 1, 2),
    "compare": (compare_command, 2, 2),
    "export": (export_command, 2, 2),
    "merge": (merge_command, 2, 10**6),
    "split": (split_command, 2, 3),
    "fetch": (fetch_command, 1, 1),
}
# Options of a command: keywords of its function
OPTIONS: dict[str, tuple[str, ...]] = {"export": ("format",), "fetch": ("cache",)}
