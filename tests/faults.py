"""The table of faults: what can go wrong for a user, what stock FFCV 1.0.2 makes of it, and what happens here.

    python tests/faults.py > docs/faults.md     # the table for people

test_faults.py holds both sides to it.
"""

from fault_table import TABLE, Fault, Source, compare, draw, read_all

# isort: split
# The order of the table
import faults_writing  # noqa: F401

# isort: split
import faults_files  # noqa: F401

# isort: split
import faults_loading  # noqa: F401

# isort: split
import faults_settings  # noqa: F401

HEAD = """# What goes wrong, and what happens then

Each row is a test: one scenario, played with stock FFCV 1.0.2 and with this toolkit, and one check of both.
`python -m pytest tests/test_faults.py` plays the right column, `--slow` the middle one too.
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
                stock = f"**{fault.stock}**" + (f": {fault.seen}" if fault.seen else "")
                text += f"| {fault.what} | {stock} | {fault.ours} |\n"
    return text


if __name__ == "__main__":
    print(markdown(), end="")
