"""What report.json holds (docs/report.md says it in words), and a check that a file is one."""

import json
import math
from pathlib import Path

from beton.errors import UserError

FORMAT = 2
_SPREAD = {"median", "mean", "min", "max", "n"}
# Key -> the type of its value
KEYS = {
    "format": int, "title": str, "verdict": dict, "machine": dict, "stages": str, "settings": dict, "data": dict,
    "rows": list, "breakdown": dict, "loader_parts": dict, "left_out": list,
}  # fmt: skip
_NUMBERS = ("cpu_seconds_per_image", "first_batch_seconds", "peak_memory_bytes", "wait_share", "ratio_to_torch")
_SPREADS = ("images_per_second", "seconds_per_epoch", "top_1")


def problems(report) -> list[str]:
    """What is wrong with the content of a report.json; [] for a good one. Rows may have further keys."""
    if not isinstance(report, dict):
        return ["it is not an object"]
    found = [f"'{key}' is missing" for key in KEYS if key not in report]
    found += [f"'{key}' is not {kind.__name__}" for key, kind in KEYS.items() if not isinstance(report.get(key), kind)]
    if found:
        return found
    if report["format"] != FORMAT:
        found.append(f"'format' is {report['format']}, not {FORMAT}")
    verdict = report["verdict"]
    if not isinstance(verdict.get("headline"), str) or not isinstance(verdict.get("changes"), list):
        found.append("'verdict' has no headline or no changes")
    for number, row in enumerate(report["rows"]):
        found += [f"rows[{number}]: {what}" for what in _row_problems(row)]
    for key in ("breakdown", "loader_parts"):
        for label, parts in report[key].items():
            if not isinstance(parts, dict) or not all(_is_number(value) for value in parts.values()):
                found.append(f"{key}[{label!r}] is not seconds by part")
    return found


def _row_problems(row) -> list[str]:
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("loader", "protocol")):
        return ["it has no loader or no protocol"]
    if "skipped" in row:
        return [] if isinstance(row["skipped"], str) else ["'skipped' is no text"]
    found = [f"'{key}' is no number" for key in _NUMBERS if row.get(key) is not None and not _is_number(row[key])]
    for key in _SPREADS:
        value = row.get(key)
        if value is None:
            continue
        if not isinstance(value, dict) or not set(value) <= _SPREAD or len(value) != 4:
            found.append(f"'{key}' is not median (or mean), min, max and n")
    values = row.get("values")
    if values is not None and (not isinstance(values, list) or not all(v is None or _is_number(v) for v in values)):
        found.append("'values' are not numbers")
    return found


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read(path: Path) -> dict:
    """The report.json at `path` (or in the folder `path`); raises UserError where it is none."""
    path = path / "report.json" if path.is_dir() else path
    try:
        report = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        what = f"cannot read the report {path} ({error})"
        raise UserError(what, "give a report.json of profile_loaders.py") from None
    found = problems(report)
    if found:
        raise UserError(f"{path} is no report of this version ({found[0]})", "measure again with this version")
    return report
