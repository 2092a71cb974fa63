"""The table of faults: what can go wrong for a user, what stock FFCV 1.0.2 makes of it, and what happens here.

    python -m tests.support.faults > docs/faults.md     # the table for people

tests/faults/test_faults.py holds both sides to it.
"""

# isort: skip_file
# In the order of the table
import tests.support.faults.writing
import tests.support.faults.files
import tests.support.faults.loading
import tests.support.faults.settings  # noqa: F401
from tests.support.faults.table import TABLE, Fault, Source, compare, draw, read_all

HEAD = """# What goes wrong, and what happens then

Each row is a test: one scenario, played with stock FFCV 1.0.2 and with this toolkit, and one check of both.
`python -m pytest tests/faults` plays the right column, `--slow` the middle one too.
"Hangs" means: nothing more happens, no exception and no end. {count} rows.
"""


def healthy(side, folder):
    """Nothing is wrong: so what is seen of stock FFCV is not the doing of its scenario."""
    photos = draw(20)
    for mode in ("raw", "jpg"):
        side.write(Source(photos), folder / f"{mode}.beton", mode)
        compare(*read_all(side, folder / f"{mode}.beton"), photos)


HEALTHY = Fault(healthy, "", "nothing", "right", "")


def named(name: str) -> Fault:
    """A row by its name."""
    return next(fault for fault in [*TABLE, HEALTHY] if fault.name == name)


def markdown() -> str:
    """The page docs/faults.md."""
    text = HEAD.format(count=len(TABLE))
    for part in dict.fromkeys(fault.part for fault in TABLE):
        text += f"\n## {part}\n\n| what goes wrong | stock FFCV 1.0.2 | here |\n|---|---|---|\n"
        for fault in TABLE:
            if fault.part == part:
                kind, colon, more = fault.stock.partition(": ")
                text += f"| {fault.what} | **{kind}**{colon}{more} | {fault.ours} |\n"
    return text
