"""What a write is told besides its fields, and all that the bytes depend on."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import cv2

from beton.errors import UserError
from beton.format.fields import FIELDS
from beton.format.fields.base import Field
from beton.format.parts import parse_part
from beton.format.records import LONGEST_NAME, VERSION
from beton.sources.subset import Part, Subset

_DRAWN, _SHUFFLED = 5 << 60, 7 << 60  # set apart from what the fields draw
_USUAL = {"image": "rgb_image", "label": "int"}  # not in the identity, as in files of version 0.1
_ENCODERS = ("numpy", "opencv-python", "pillow")  # their versions decide the bytes


@dataclass(frozen=True)
class WriteOptions:
    """How a write goes about it; `seed` alone has a part in what comes out.

    `num_workers`: threads or processes. `chunk_size`: samples that one takes at a time, at most. `subset`: only the
    first so many samples, -1 for all; `random_subset`: so many, drawn by `seed`. `shuffle`: store them in an order that
    `seed` draws, not in the source's. `seed`: chooses what is chosen by lot. `on_error`: 'raise' or 'skip' for samples
    that cannot be read. `resume`: continue a write that was interrupted, and keep what the next one needs; a file that
    is complete already stays as it is. `part`: '3/8' for the third eighth of the samples only, stored as in the whole
    file.
    """

    num_workers: int = 16
    chunk_size: int = 100
    subset: int = -1
    random_subset: int | None = None
    shuffle: bool = False
    seed: int = 0
    on_error: str = "raise"
    resume: bool = False
    part: str | None = None

    def selected(self, source):
        """The samples of a source that are written, as a source; a Subset is taken as it is."""
        if isinstance(source, Subset):
            return source
        from beton.rng import permutation

        if self.random_subset is not None:
            drawn = permutation(len(source), self.seed ^ _DRAWN)[: self.random_subset]
            source = Subset(source, sorted(drawn.tolist()))
        elif self.subset >= 0:
            source = Subset(source, range(min(self.subset, len(source))))
        if self.shuffle:  # before it is cut into parts: each has samples of all classes
            source = Subset(source, permutation(len(source), self.seed ^ _SHUFFLED))
        return source if self.part is None else Part(source, *parse_part(self.part))


def make_fields(kinds: dict[str, str | Field], options: dict[str, Any]) -> dict[str, Field]:
    """A field of each kind (a file in beton/format/fields) by name, with those of the `options` that it has; what is a
    field already stays one."""
    made = {}
    for name, kind in kinds.items():
        if isinstance(kind, Field):
            made[name] = kind
            continue
        field = FIELDS.get(kind)
        known = {option.name for option in dataclass_fields(field)}
        made[name] = field(**{option: value for option, value in options.items() if option in known})
    return made


def check_fields(fields: dict[str, Field]) -> None:
    """Raise UserError for names that a .beton cannot hold."""
    if not fields:
        raise UserError("a sample needs at least one field", "give `fields`")
    for name in fields:
        if not name.isascii() or not 0 < len(name) <= LONGEST_NAME or "\0" in name:
            raise UserError(f"{name!r} cannot be the name of a field", f"give one of 1 to {LONGEST_NAME} ASCII letters")


def by_option(of_fields: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The entries of several fields as one dict; those that several fields have get the field's name in front."""
    counts = Counter(key for entries in of_fields.values() for key in entries)
    return {
        key if counts[key] == 1 else f"{name}.{key}": value
        for name, entries in of_fields.items()
        for key, value in entries.items()
    }


def parameters(fields: dict[str, Field]) -> dict[str, Any]:
    """The options of all fields, as JSON has them."""
    return by_option(
        {
            name: {option: list(value) if isinstance(value, tuple) else value for option, value in vars(field).items()}
            for name, field in fields.items()
        }
    )


def versions() -> dict[str, str]:
    """Versions of the packages that decode and encode."""
    return {name: version_of(name) for name in _ENCODERS}


def version_of(package: str) -> str:
    """The installed version; OpenCV comes in packages of several names."""
    names = [package, *(f"{package}-headless", "opencv-contrib-python") * (package == "opencv-python")]
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return cv2.__version__ if package == "opencv-python" else "unknown"


def identity(source, fields: dict[str, Field], options: WriteOptions, about: dict) -> dict[str, Any]:
    """All that the bytes depend on: what is resumed must have begun with the same."""
    samples = hashlib.sha256()
    for i in range(len(source)):
        samples.update(f"{source.identity(i)}\0".encode("utf-8", "surrogateescape"))
    kinds = {name: next(iter(field.type_names.values())) for name, field in fields.items()}
    return {
        **parameters(fields),
        **({} if kinds == _USUAL else {"fields": kinds}),
        "seed": options.seed,
        **{f"source {name}": value for name, value in about.items()},
        **{f"version of {name}": number for name, number in versions().items()},
        "format version": VERSION,
        "names and labels": samples.hexdigest()[:16],
        **({"shuffle": True} if options.shuffle else {}),
        **({} if options.part is None else {"part": options.part}),
    }


def part_of(source, fields: dict[str, Field], options: WriteOptions) -> dict[str, Any] | None:
    """What the card of a part says of it: `number`, `of`, its `start` among the samples, and by which `write` all parts
    know one another, wherever the machines have their photos; None for a file that is no part."""
    if not isinstance(source, Part):
        return None
    whole = source.source
    called, label = getattr(whole, "stored_name", whole.name), getattr(whole, "label", lambda index: "")
    write = hashlib.sha256(repr((parameters(fields), options.seed, VERSION, len(whole))).encode())
    for i in range(len(whole)):
        write.update(f"{label(i)} {called(i)}\0".encode("utf-8", "surrogateescape"))
    return {"number": source.number, "of": source.of, "start": source.start, "write": write.hexdigest()[:16]}


def differing(before: dict, now: dict) -> dict[str, tuple]:
    """(before, now) of the parts of two identities that differ."""
    before = {name.removeprefix("cfg."): value for name, value in before.items()}  # files of version 0.1
    names = {**before, **now}
    return {name: (before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)}
