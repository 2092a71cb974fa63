"""Two or more reports side by side: `profile_loaders.py compare A/report.json B/report.json`.

The rule. A report has for each loader and protocol the images per second of n independent measurements (fresh
processes in interleaved rounds; for protocol train, runs). The ratio of two reports is that of their geometric means,
and its 95 % confidence interval is Welch's t interval of the logarithms (Welch 1947), for unequal variances. "Faster"
or "slower" is said only where the interval does not contain 1, both have at least 3 measurements, and neither has a
spread (greatest less least, over the median) of more than 15 %. With other photos nothing is compared; of protocol load
nothing with other stages or another batch size, of train nothing with another trainer, recipe or number of epochs.
"""

import json
import math
import statistics
from pathlib import Path

from beton.errors import UserError
from beton.files import publish
from runtime.outputs import make_folder
from runtime.profiling import page, schema
from runtime.profiling.plots import is_measured, number, one_line

FEWEST, LARGEST_SPREAD = 3, 0.15
# Settings that must be equal for rows of a protocol to be compared, and those of which a difference is only said
_MUST = {
    "load": ("profile.batch_size", "profile.in_memory"),
    "train": ("profile.trainer", "profile.config", "profile.epochs"),
}
_SAID = ("profile.num_workers",)
_PHOTOS = ("photos", "photos_digest", "samples", "source_digest")
# Student's t, two-sided 95 %, by degrees of freedom
_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228, 12: 2.179,
      15: 2.131, 20: 2.086, 30: 2.042, 60: 2.000, math.inf: 1.960}  # fmt: skip


def t_95(freedom: float) -> float:
    """Student's t for a two-sided interval of 95 %, interpolated in 1 / freedom; at least 1."""
    above = min(key for key in _T if key >= freedom)
    below = max(key for key in _T if key <= freedom)
    if above == below:
        return _T[above]
    share = (1 / below - 1 / freedom) / (1 / below - 1 / above)
    return _T[below] + share * (_T[above] - _T[below])


def difference(before: list[float], after: list[float]) -> dict:
    """{"ratio", "low", "high", "n", "words"}: after / before by the rule above; low and high are None where there are
    too few measurements."""
    logs = [[math.log(value) for value in values] for values in (before, after)]
    change = statistics.fmean(logs[1]) - statistics.fmean(logs[0])
    found = {"ratio": math.exp(change), "low": None, "high": None, "n": min(len(before), len(after))}
    if found["n"] < FEWEST:
        return found | {"words": f"too few measurements to tell (n={found['n']}, needs {FEWEST})"}
    errors = [statistics.variance(values) / len(values) for values in logs]
    half = 0.0
    if sum(errors):
        weights = (error**2 / (len(values) - 1) for error, values in zip(errors, logs, strict=True))
        half = t_95(sum(errors) ** 2 / sum(weights)) * math.sqrt(sum(errors))
    found |= {"low": math.exp(change - half), "high": math.exp(change + half)}
    wide = [spread for spread in map(_spread, (before, after)) if spread > LARGEST_SPREAD]
    if wide:
        words = f"not to be relied on: spread {100 * max(wide):.0f} %, more than {100 * LARGEST_SPREAD:.0f} %"
        return found | {"words": words}
    percent, margin = 100 * (found["ratio"] - 1), 50 * (found["high"] - found["low"])
    if found["low"] <= 1 <= found["high"]:
        return found | {"words": f"no difference shown ({percent:+.1f} % +- {margin:.1f} %, n={found['n']})"}
    word = "faster" if percent > 0 else "slower"
    return found | {"words": f"{word} by {abs(percent):.1f} % +- {margin:.1f} %, n={found['n']}"}


def compare(names: list[str], reports: list[dict]) -> dict:
    """{"reports", "rows", "notes"}: each report but the first beside the first.

    Rows: {"loader", "protocol", "before", "after" (median images/s), "report" (of after), and difference()'s, or
    "refused" instead}. Raises UserError where nothing can be compared.
    """
    base, rows, notes = reports[0], [], []
    for name, report in zip(names[1:], reports[1:], strict=True):
        _check_photos(names[0], base, name, report)
        notes += [f"{name}: {note}" for note in _notes(base, report)]
        rows += [{"report": name, **row} for row in _rows(base, report)]
    if not any("ratio" in row for row in rows):
        why = rows[0]["refused"] if rows else "no loader and protocol is in both"
        raise UserError(f"these reports cannot be compared ({why})", "measure both in the same way")
    return {"reports": names, "rows": rows, "notes": notes}


def _check_photos(name: str, base: dict, other_name: str, other: dict) -> None:
    for key in _PHOTOS:
        values = base["data"].get(key), other["data"].get(key)
        if None not in values and values[0] != values[1]:
            what = f"{name} and {other_name} are of other photos ({key} {values[0]} and {values[1]})"
            raise UserError(what, "measure both on the same photos")


def _notes(base: dict, report: dict) -> list[str]:
    """What else is different, and what is not known to be equal."""
    found = []
    if not any(base["data"].get(key) and report["data"].get(key) for key in _PHOTOS):
        found.append("nothing says that the photos are the same")
    if base["data"].get("dataset_sha256") != report["data"].get("dataset_sha256"):
        found.append("the .beton is another one (mode, size or quality)")
    for key in ("cpu", "cores", "gpus"):
        if base["machine"].get(key) != report["machine"].get(key):
            found.append(f"another machine ({key} {base['machine'].get(key)} before, {report['machine'].get(key)} now)")
    for key in _SAID:
        if base["settings"].get(key) != report["settings"].get(key):
            found.append(f"{key} {base['settings'].get(key)} before, {report['settings'].get(key)} now")
    before, now = (each["machine"].get("versions") or {} for each in (base, report))
    changed = [f"{p} {before.get(p)} -> {now.get(p)}" for p in sorted({*before, *now}) if before.get(p) != now.get(p)]
    return found + ([f"other versions: {', '.join(changed)}"] if changed else [])


def _rows(base: dict, report: dict) -> list[dict]:
    found = []
    before = {(row["loader"], row["protocol"]): row for row in base["rows"] if is_measured(row, "images_per_second")}
    for row in report["rows"]:
        old = before.get((row["loader"], row["protocol"]))
        if old is None or not is_measured(row, "images_per_second"):
            continue
        line = {"loader": row["loader"], "protocol": row["protocol"]}
        line |= {"before": old["images_per_second"]["median"], "after": row["images_per_second"]["median"]}
        if why := _refused(base, report, row["protocol"]):
            found.append({**line, "refused": why})
        else:
            values = [each.get("values") or [each["images_per_second"]["median"]] for each in (old, row)]
            found.append(line | difference(*values))
    return found


def _refused(base: dict, report: dict, protocol: str) -> str | None:
    kind = "train" if protocol.startswith(("train", "cached")) else "load"
    if kind == "load" and base["stages"] != report["stages"]:
        return "other stages"
    for key in _MUST[kind]:
        if base["settings"].get(key) != report["settings"].get(key):
            return f"another {key}"
    return None


def blocks(found: dict) -> list[tuple]:
    """A comparison as blocks of runtime.profiling.page."""
    lines = []
    for row in found["rows"]:
        told = [f"{row['ratio']:.3f}", row["words"]] if "ratio" in row else ["-", f"not compared: {row['refused']}"]
        rates = [number(row["before"]), number(row["after"])]
        lines.append([one_line(row["loader"]), one_line(row["protocol"]), one_line(row["report"]), *rates, *told])
    head = ["loader", "protocol", "report", f"images/s in {found['reports'][0]}", "images/s", "ratio", "which is"]
    made: list[tuple] = [("title", "Reports side by side"), ("numbers", [head, *lines])]
    if found["notes"]:
        made += [("heading", "What is different"), ("list", [one_line(note) for note in found["notes"]])]
    rule = "Faster or slower is said where Welch's interval of 95 % excludes 1, with at least 3 measurements each"
    return [*made, ("text", f"{rule} and no spread of more than 15 %.")]


def write(out: Path, found: dict) -> None:
    """comparison.json, comparison.md and comparison.html in the folder `out`; raises UserError."""
    make_folder(out)
    publish(out / "comparison.json", json.dumps(found, indent=2) + "\n")
    publish(out / "comparison.md", page.markdown(blocks(found)))
    publish(out / "comparison.html", page.page("Reports side by side", blocks(found)))


def main(paths: list[str], out: str | None) -> None:
    """Compare the reports at `paths` and print the table."""
    if len(paths) < 2:
        raise UserError("compare needs two reports or more", "give A/report.json B/report.json")
    found = compare(paths, [schema.read(Path(path)) for path in paths])
    for kind, content in blocks(found)[1:]:
        if kind == "numbers":
            widths = [max(map(len, column)) for column in zip(*content, strict=True)]
            for line in content:
                print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        elif kind == "list":
            print("\n".join(f"note: {note}" for note in content))
        elif kind == "text":
            print(content)
    if out:
        write(Path(out), found)
        print(f"=> Comparison in {Path(out) / 'comparison.html'}")


def _spread(values: list[float]) -> float:
    return (max(values) - min(values)) / statistics.median(values)
