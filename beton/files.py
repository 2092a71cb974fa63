"""Files that appear whole or not at all: written aside, then renamed."""

import os
from pathlib import Path


def partial_path(path: Path) -> Path:
    """Where a file lies until it is complete."""
    return path.with_name(f".{path.name}.partial")


def publish(path: Path, content: str | bytes) -> None:
    """Write a file aside and rename it, so that nobody ever sees half of it. Raises OSError."""
    aside = partial_path(path)
    try:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
