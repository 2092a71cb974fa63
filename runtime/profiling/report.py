"""Rows and runs -> report.json, report.md, report.html, rows.csv, epochs.csv and plots. Measures nothing.

docs/report.md says what each file holds.
"""

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path

from beton.errors import UserError
from beton.files import publish
from runtime import verdict
from runtime.outputs import make_folder
from runtime.profiling import page, plots, schema
from runtime.profiling.compare import LARGEST_SPREAD
from runtime.profiling.findings import breakdowns, findings, loader_parts
from runtime.profiling.plots import is_measured, number, one_line

# Further columns of a protocol's table, where its rows have them: heading, key, factor (None: text)
_MORE = (
    ("% of the ceiling", "ratio_to_ceiling", 100.0),
    ("start s", "start_seconds", 1.0),
    ("difference", "difference", 1.0),
    ("other load, cores", "others_cpu", 1.0),
    ("page cache", "cache", None),
)
Runs = dict[str, list[dict]]  # by label, as of runtime.profiling.runs.load_run
_EPOCH_KEYS = (
    *("epoch", "res", "lr", "train_loss", "val_loss", "top_1", "top_5", "images", "images_per_second"),
    *("epoch_time", "train_time", "val_time", "wait_time", "first_batch_time", "transfer_time", "compute_time"),
    *("optimizer_time", "compile_time", "other_time", "gpu_idle_time", "idle_cores"),
)


def with_ratios(rows: list[dict]) -> list[dict]:
    """Copies of `rows` with "ratio_to_torch" where 'torch' was measured under the same protocol."""
    torch = {}
    for row in rows:
        if row["loader"] == "torch" and is_measured(row, "images_per_second"):
            torch.setdefault(row["protocol"], row["images_per_second"]["median"])
    rows = [dict(row) for row in rows]
    for row in rows:
        if is_measured(row, "images_per_second") and torch.get(row["protocol"]):
            row["ratio_to_torch"] = row["images_per_second"]["median"] / torch[row["protocol"]]
    return rows


def _cells(rows: list[dict]) -> list[list[str]]:
    """The table of the measured rows as text, header first; train columns only when needed."""
    rows = [row for row in with_ratios(rows) if not row.get("skipped")]

    def scaled(row: dict, key: str, scale: float = 1.0) -> str:
        return "-" if row.get(key) is None else number(row[key] * scale)

    def spread(row: dict, key: str, middle: str = "median", scale: float = 1.0) -> str:
        if not is_measured(row, key):
            return "-"
        of = row[key]
        middle, low, high = (of[key] * scale for key in (middle, "min", "max"))
        texts = [f"{x:.2f}" if scale == 100.0 else number(x, middle) for x in (middle, low, high)]
        return texts[0] + (f" [{texts[1]}-{texts[2]}]" if of["n"] > 1 else "") + f" n={of['n']}"

    columns = {
        "loader": lambda row: one_line(row["loader"]),
        "protocol": lambda row: one_line(row["protocol"]),
        "images/s: median [min-max] n": lambda row: spread(row, "images_per_second"),
        "ratio to torch": lambda row: f"{row['ratio_to_torch']:.2f}" if row.get("ratio_to_torch") else "-",
        "CPU ms/image": lambda row: scaled(row, "cpu_seconds_per_image", 1e3),
        "first batch s": lambda row: scaled(row, "first_batch_seconds"),
        "peak memory MB": lambda row: scaled(row, "peak_memory_bytes", 1e-6),
        "waiting %": lambda row: scaled(row, "wait_share", 1e2),
    }
    if any(is_measured(row, "seconds_per_epoch") for row in rows):
        columns["s/epoch: median [min-max] n"] = lambda row: spread(row, "seconds_per_epoch")
    if any(is_measured(row, "top_1") for row in rows):
        columns["top-1 %: mean [min-max] n"] = lambda row: spread(row, "top_1", "mean", 100.0)
    return [list(columns), *([cell(row) for cell in columns.values()] for row in rows)]


def markdown_table(rows: list[dict]) -> str:
    """The measured rows as a Markdown table, with units in its header; MB are 10^6 bytes."""
    return page.md_table(_cells(rows), numbers=True)


def terminal_table(rows: list[dict]) -> str:
    """The table of `markdown_table`, aligned with spaces."""
    cells = _cells(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    aligns = [str.ljust, str.ljust] + [str.rjust] * (len(widths) - 2)
    padded = [[align(*cell) for align, *cell in zip(aligns, line, widths, strict=True)] for line in cells]
    return "\n".join("  ".join(line).rstrip() for line in padded)


def _facts(mapping: dict, prefix: str = "") -> Iterator[list[str]]:
    """A mapping, nested or not, as [name, value] lines with dotted names."""
    for key, value in mapping.items():
        if isinstance(value, dict):
            yield from _facts(value, f"{prefix}{key}.")
        else:
            value = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
            yield [one_line(f"{prefix}{key}"), "-" if value is None else one_line(value)]


def _table_of(rows: list[dict], protocol: str) -> list[list[str]]:
    """The table of one protocol: without the column that names it and without those that have no value."""
    rows = [row for row in rows if row["protocol"] == protocol and not row.get("skipped")]
    cells = _cells(rows)
    for heading, key, scale in _MORE:
        if any(row.get(key) is not None for row in rows):
            told = [row.get(key) for row in rows]
            told = ["-" if v is None else number(v * scale) if scale else one_line(v) for v in told]
            cells = [[*line, cell] for line, cell in zip(cells, [heading, *told], strict=True)]
    kept = [i for i, column in enumerate(zip(*cells, strict=True)) if i == 0 or (i > 1 and set(column[1:]) != {"-"})]
    return [[line[i] for i in kept] for line in cells]


def _blocks(report: dict, drawn: dict, reasons: list[str]) -> Iterator[tuple]:
    """The content of a report, in order, as (kind, content).

    Kinds: title, heading, text, verdict, code; list and steps (of texts), facts and numbers (tables, header first),
    plots (name -> plot).
    """
    rows, found = report["rows"], report["verdict"]
    yield "title", one_line(report["title"])
    yield "verdict", one_line(found["headline"])
    for text in found["more"]:
        yield "text", one_line(text)
    if found["changes"]:
        yield "heading", "What would make an epoch shorter, the cheapest first"
        yield "steps", [f"{one_line(c['text'])}: {verdict.seconds(c['saves'])} of an epoch" for c in found["changes"]]
    for names in (plots.BARS, plots.CURVES, plots.BREAKDOWNS):
        if some := {name: drawn[name] for name in names if name in drawn}:
            yield "plots", some
    for reason in reasons:
        yield "text", reason
    if report["breakdown"]:
        yield "heading", "Seconds of an epoch"
        yield "numbers", _parts_table(report["breakdown"], 1.0)
    if report["loader_parts"]:
        yield "heading", "Milliseconds of a loader's thread for an image"
        yield "numbers", _parts_table(report["loader_parts"], 1e3)
    measured = list(dict.fromkeys(row["protocol"] for row in rows if not row.get("skipped")))
    for protocol in measured:
        yield "heading", f"Measured by protocol {one_line(protocol)}"
        yield "numbers", _table_of(rows, protocol)
        if wide := [text for row in rows if row["protocol"] == protocol and (text := _wide(row))]:
            yield "text", f"Not to be relied on, as measurements differ by more than 15 %: {', '.join(wide)}."
    if any(protocol.startswith(("load", "feed")) for protocol in measured):
        yield "text", "Stages of protocols load and feed, the same for every loader:"
        yield "code", one_line(report["stages"])
    yield from _rest(report)


def _share(part: float | None, whole: float, scale: float) -> str:
    if part is None or not whole:
        return "-"
    return f"{number(part * scale)} ({100 * part / whole:.0f} %)" if part >= 0.0005 * whole else "0"


def _wide(row: dict) -> str | None:
    """A row's loader and the spread of its speed (greatest less least, over the median), if that is too much."""
    if not is_measured(row, "images_per_second"):
        return None
    speed = row["images_per_second"]
    spread = (speed["max"] - speed["min"]) / speed["median"] if speed["median"] else 0.0
    return f"{one_line(row['loader'])} ({100 * spread:.0f} %)" if spread > LARGEST_SPREAD else None


def _rest(report: dict) -> Iterator[tuple]:
    """What stands below the tables."""
    for name, facts in (
        ("Data", report["data"]),
        ("Settings", report["settings"]),
        ("Machine and versions", report["machine"]),
    ):
        if facts:
            yield "heading", name
            yield "facts", [["name", "value"], *_facts(facts)]
    skipped = [row for row in report["rows"] if row.get("skipped")]
    if skipped:
        lines = [[one_line(row[key]) for key in ("loader", "protocol", "skipped")] for row in skipped]
        yield "heading", "Skipped"
        yield "facts", [["loader", "protocol", "reason"], *lines]
    if report["left_out"]:
        yield "heading", "What this leaves out"
        yield "list", [one_line(item) for item in report["left_out"]]


def _parts_table(of: dict[str, dict[str, float]], scale: float) -> list[list[str]]:
    """Parts by label, with their share of the whole."""
    parts = list(dict.fromkeys(part for each in of.values() for part in each))
    lines = []
    for label, each in of.items():
        whole = sum(each.values())
        lines.append([one_line(label), number(whole * scale), *(_share(each.get(p), whole, scale) for p in parts)])
    kept = [i for i, part in enumerate(parts) if any(each.get(part) for each in of.values())]
    return [[line[0], line[1], *(line[2 + i] for i in kept)] for line in [["loader", "whole", *parts], *lines]]


def _plain(value):
    """`value` for JSON: NumPy scalars as numbers, NaN and infinities as null, other types as text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int) else str(value)


def _csv(header: list[str], lines: list[list]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *lines])
    return text.getvalue().encode("utf-8", "replace")


def _rows_csv(rows: list[dict]) -> bytes:
    """A line for each row; spreads become columns like images_per_second.median."""
    flat = []
    for row in rows:
        line: dict = {}
        for key, value in row.items():
            if isinstance(value, dict):
                line |= {f"{key}.{name}": inner for name, inner in value.items()}
            elif not isinstance(value, list):
                line[key] = value
        flat.append(line)
    header = list(dict.fromkeys(key for line in flat for key in line))
    return _csv(header, [[line.get(key) for key in header] for line in flat])


def _epochs_csv(runs: Runs) -> bytes:
    """A line for each epoch of each run."""
    lines = [
        [label, number_of_run, *(line.get(key) for key in _EPOCH_KEYS)]
        for label, group in runs.items()
        for number_of_run, run in enumerate(group)
        for line in run["epochs"]
    ]
    return _csv(["label", "run", *_EPOCH_KEYS], lines)


def make_report(
    *, machine: dict, stages: str, settings: dict, rows: list[dict], runs: Runs, title: str, data=None, alternatives=(),
    parts=None,
) -> dict:  # fmt: skip
    """The content of report.json (runtime/profiling/schema.py).

    `data`: what the photos are (runtime.profiling.data.identity). `alternatives`: see findings(). `parts`: by label,
    seconds of a loader's thread for an image by part, of loaders that were measured alone.
    """
    settings = dict(settings)
    left_out = settings.pop("leaves_out", None) or []
    report = {"format": schema.FORMAT, "title": title, "verdict": findings(rows, runs, alternatives)}
    report |= {"machine": machine, "stages": stages, "settings": settings, "data": data or {}}
    told = {**(parts or {}), **loader_parts(runs)}
    report |= {"rows": with_ratios(rows), "breakdown": breakdowns(runs), "loader_parts": told}
    return _plain({**report, "left_out": left_out})


def write_report(
    out: Path, *, machine: dict, stages: str, settings: dict, rows: list[dict], runs: Runs, title: str, data=None,
    alternatives=(), parts=None,
) -> Path:  # fmt: skip
    """Write all files of the report into `out`; returns the path of the HTML. The arguments are make_report's.

    Everything is rendered before the first file is written. Plots of an earlier report that this one does not have
    are removed.
    """
    out = Path(out)
    report = make_report(
        machine=machine, stages=stages, settings=settings, rows=rows, runs=runs, title=title, data=data,
        alternatives=alternatives, parts=parts,
    )  # fmt: skip
    drawn, reasons = plots.draw(report["rows"], runs, settings, report["breakdown"], report["loader_parts"])
    blocks = list(_blocks(report, drawn, reasons))
    files = {f"{name}.{end}": plot[end] for name, plot in drawn.items() for end in ("png", "svg")}
    texts = {
        "report.json": json.dumps(report, indent=2) + "\n",
        "report.md": page.markdown(blocks),
        "report.html": page.page(one_line(report["title"]), blocks),
    }
    files |= {name: text.encode("utf-8", "replace") for name, text in texts.items()}
    files |= {"rows.csv": _rows_csv(report["rows"])} | ({"epochs.csv": _epochs_csv(runs)} if runs else {})
    optional = {f"{name}.{end}" for name in plots.NAMES for end in ("png", "svg")} | {"epochs.csv"}
    try:
        make_folder(out)
        for name, content in files.items():
            publish(out / name, content)
        for stale in optional - set(files):
            (out / stale).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {out} ({error.strerror})", "name another folder") from error
    return out / "report.html"
