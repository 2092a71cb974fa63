"""Commands that look into a .beton: `write_dataset.py check|info|preview|compare FILE ...`.

Exit status: 0, or 1 where check found damaged samples or compare found differences.
"""

from collections.abc import Callable, Iterable

import numpy as np

from pipelines.beton import FIELD_TYPES, MODE_NAMES, VERSION, card_path
from pipelines.compare import compare
from pipelines.errors import DamagedSample, UserError
from pipelines.payloads import Payloads, each
from pipelines.preview import preview

_MOST_NAMED = 20

HELP = """usage: write_dataset.py check FILE             read everything, name every damaged sample
       write_dataset.py info FILE              print what is inside
       write_dataset.py preview FILE [OUT.png] draw a contact sheet; default: FILE's name + .png, in this folder
       write_dataset.py compare FILE FOLDER    is the file still what the photo folder holds?

Exit status: 0; 1 where check found damaged samples or compare found differences; 2 for errors."""


def main(argv: list[str]) -> int:
    """Run a command (its first word is one of COMMANDS); returns the exit status. Raises UserError."""
    name, *arguments = argv
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    command, fewest, most = COMMANDS[name]
    if not fewest <= len(arguments) <= most:
        usage = next(line for line in HELP.splitlines() if f"write_dataset.py {name} " in line)
        usage = " ".join(usage.removeprefix("usage:").split()[: 2 + most])
        raise UserError(f"'{name}' takes {usage.split(name)[1].strip()}, not {len(arguments)} words", f"write {usage}")
    return command(*arguments)


def check_command(path: str) -> int:
    """Read every photo; name those that are damaged."""
    photos = Payloads(path)
    passed = (photos.index.card or {}).get("passed_through")
    # What was passed through has a right checksum though it may have been damaged from the start
    decode, checksums = photos.index.checksums is None or bool(passed), photos.index.checksums is not None
    how = "every checksum compared" if checksums else "no checksums: every photo decoded, which shows only a part"
    how += ", every photo decoded" if checksums and decode else ""
    damaged = list(damaged_samples(photos, decode))
    named(f"damaged: {photos.about(e.sample)}: {e.why}" for e in damaged)
    photos.close()
    what = f"{len(damaged)} of {len(photos)} samples {'is' if len(damaged) == 1 else 'are'} damaged"
    print(f"=> {path}: {what if damaged else f'all {len(photos)} samples are good'} (tables checked, {how})")
    if damaged:
        print("   write the dataset again, or read it with data.on_error=skip or substitute")
    return 1 if damaged else 0


def damaged_samples(photos: Payloads, decode: bool) -> Iterable[DamagedSample]:
    """Every damaged sample: by its checksum, and (`decode`) by decoding it."""

    def look(sample: int) -> DamagedSample | None:
        try:
            payload = photos.verified(sample)
            if decode:
                photos.decode(sample, payload)
        except DamagedSample as error:
            return error
        return None

    return (error for _, error in each(look, len(photos)) if error is not None)


def named(lines: Iterable[str]) -> None:
    """Print at most _MOST_NAMED lines, and how many more there are."""
    lines = list(lines)
    print(*lines[:_MOST_NAMED], sep="\n", end="\n" if lines else "")
    if len(lines) > _MOST_NAMED:
        print(f"... and {len(lines) - _MOST_NAMED} more")


def compare_command(path: str, folder: str) -> int:
    """Compare with a photo folder; name what differs."""
    differences, what = compare(path, folder)
    named(f"differs: {line}" for line in differences)
    found = f"{len(differences)} differences" if differences else "no difference"
    print(f"=> {path} and {folder}: {found} ({what})")
    return 1 if differences else 0


def preview_command(path: str, out: str | None = None) -> int:
    """Draw a contact sheet."""
    written, count = preview(path, out)
    print(f"=> {written}: {count} photos of {path}")
    return 0


def info_command(path: str) -> int:
    """Print what is inside."""
    photos = Payloads(path)
    photos.close()
    index, images = photos.index, photos.images
    fields = ", ".join(f"{name} ({FIELD_TYPES[type_id][0]})" for name, type_id in index.fields.items())
    print(f"=> {path}: FFCV format {VERSION}, {len(photos)} samples, {_megabytes(index.file_id[2])}")
    _line("fields", f"{fields}; pages of {index.page_size / 2**20:g} MiB")
    for mode in np.unique(images["mode"]).tolist():
        chosen = images["mode"] == mode
        _line(MODE_NAMES[mode], f"{chosen.sum()} photos, {_megabytes(index.sizes[chosen].sum())}")
    for side in ("width", "height"):
        values = images[side]
        _line(side, f"{values.min()} to {values.max()} pixels, median {np.median(values):g}")
    _print_classes(photos)
    if index.card is None:
        _line("card", f"none ({card_path(path)}): no class names, parameters and checksums")
    else:
        _print_card(index.card)
    return 0


def _print_classes(photos: Payloads) -> None:
    if photos.labels is None:
        return
    labels, counts = np.unique(photos.labels, return_counts=True)
    first = np.unique(photos.labels, return_index=True)[1][:10].tolist()
    some = ", ".join(f"{photos.label_name(s)}: {n}" for s, n in zip(first, counts[:10].tolist(), strict=True))
    _line("classes", f"{len(labels)} ({some}{', ...' if len(labels) > 10 else ''})")


def _print_card(card: dict) -> None:
    """What is known from the card alone; any key may be missing."""
    for key in ("parameters", "source", "versions"):
        if isinstance(card.get(key), dict):
            _line(key, ", ".join(f"{name}={value}" for name, value in card[key].items()))
    if card.get("skipped"):
        _line("left out", f"{len(card['skipped'])} photos that could not be read")
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
}
