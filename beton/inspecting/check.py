"""Which samples of a .beton are damaged."""

from collections.abc import Iterator

from beton import system
from beton.errors import DamagedSample
from beton.format.file import BetonFile
from beton.format.joined import JoinedFile
from beton.inspecting.each import each


def damaged_samples(file: BetonFile, decode: bool) -> Iterator[DamagedSample]:
    """Every damaged sample: by its checksum, and (`decode`) by decoding its values."""

    def look(sample: int) -> DamagedSample | None:
        try:
            payloads = file.verified(sample)
            if decode:
                for name in file.columns:
                    if file.columns[name].field.loads:
                        file.value(sample, name, payloads.get(name))
        except DamagedSample as error:
            return error
        return None

    return (error for _, error in each(look, len(file)) if error is not None)


def is_the_cards(file: BetonFile) -> bool:
    """Whether the file has the SHA-256 that its card says; True where the card says none."""
    if isinstance(file, JoinedFile):
        return all(map(is_the_cards, file.parts))
    expected = (file.card or {}).get("sha256")
    return expected is None or system.sha256(file.path) == expected


def needs_decoding(file: BetonFile) -> bool:
    """Whether checksums alone do not show all damage.

    What was passed through has a right checksum though it may have been damaged from the start.
    """
    return file.checksums is None or bool((file.card or {}).get("passed_through"))
