"""A row of tests/matrix.sh: runs within the environment that was tested.

matrix.py RESOLUTION JUNIT_XML SECONDS STATUS JSON: prints the row as Markdown, and adds it to the JSON file's rows.
Without arguments it prints the head of the table.
"""

import json
import platform
import sys
import xml.etree.ElementTree as ET
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("torch", "numpy", "numba", "pillow", "opencv-python-headless")
COUNTS = ("passed", "failed", "skipped")
COLUMNS = ("python", "bounds", *PACKAGES, *COUNTS, "seconds")
BOUNDS = {"lowest-direct": "oldest", "highest": "newest"}


def counts(junit: Path) -> dict[str, int]:
    """Tests that passed, failed and were skipped; none passed where pytest has not come to write the file."""
    if not junit.exists():
        return {"passed": 0, "failed": 1, "skipped": 0}
    suite = ET.parse(junit).getroot().find("testsuite")
    total, skipped = int(suite.get("tests")), int(suite.get("skipped"))
    failed = int(suite.get("failures")) + int(suite.get("errors"))
    return {"passed": total - failed - skipped, "failed": failed, "skipped": skipped}


def main() -> None:
    """See above."""
    if len(sys.argv) == 1:
        print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
        return
    resolution, junit, seconds, status, out = sys.argv[1:]
    row = {"python": platform.python_version(), "bounds": BOUNDS[resolution]}
    row |= {name: version(name) for name in PACKAGES}
    row |= counts(Path(junit))
    row |= {"seconds": int(seconds), "status": int(status)}
    print("| " + " | ".join(str(row[name]) for name in COLUMNS) + " |")
    path = Path(out)
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    path.write_text(json.dumps({"rows": [*rows, row]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
