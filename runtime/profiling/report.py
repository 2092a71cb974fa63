"""Rows and runs -> report.json, report.md, report.html and plots. Measures nothing.

Markdown and HTML are rendered from one list of blocks (`_blocks`), so their contents agree. The HTML is
self-contained.
"""

import base64
import html
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

from beton.errors import UserError
from beton.files import publish
from runtime.outputs import make_folder
from runtime.profiling import plots
from runtime.profiling.plots import PAGE_STYLE, is_measured, number, one_line

Runs = dict[str, list[dict]]  # by label, as of runtime.profiling.runs.load_run
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>%s</title><style>%s</style></head>
<body>
%s
</body></html>
"""


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
    return _md_table(_cells(rows), numbers=True)


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


def _blocks(report: dict, drawn: dict, reasons: list[str]) -> Iterator[tuple]:
    """The content of a report, in order, as (kind, content)."""
    rows, settings = report["rows"], dict(report["settings"])
    leaves_out = settings.pop("leaves_out", None) or []
    yield "title", one_line(report["title"])
    yield "text", "Stages, the same for every loader:"
    yield "code", one_line(report["stages"])
    cells = _cells(rows)
    yield ("numbers", cells) if len(cells) > 1 else ("text", "Nothing was measured.")
    for name, facts in (("Machine and versions", report["machine"]), ("Settings", settings)):
        if facts:
            yield "heading", name
            yield "facts", [["name", "value"], *_facts(facts)]
    yield "heading", "Plots"
    for name, plot in drawn.items():
        yield "plot", (name, plot)
    for reason in reasons:
        yield "text", reason
    skipped = [row for row in rows if row.get("skipped")]
    if skipped:
        lines = [[one_line(row[key]) for key in ("loader", "protocol", "skipped")] for row in skipped]
        yield "heading", "Skipped"
        yield "facts", [["loader", "protocol", "reason"], *lines]
    if leaves_out:
        yield "heading", "What this leaves out"
        yield "list", [one_line(item) for item in leaves_out]


def _md_text(text: str) -> str:
    """`text` escaped for Markdown; brackets that make no link stay."""
    return re.sub(r"([\\`*<|]|\](?=[(\[:]))", r"\\\1", text.replace("&", "&amp;"))


def _md_table(cells: list[list[str]], numbers: bool = False) -> str:
    rule = ["---" if i < 2 or not numbers else "---:" for i in range(len(cells[0]))]
    lines = [rule if line is None else map(_md_text, line) for line in (cells[0], None, *cells[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _md(kind: str, content) -> str:
    if kind in ("numbers", "facts"):
        return _md_table(content, numbers=kind == "numbers")
    if kind == "plot":
        return f"[![{content[1]['title']}]({content[0]}.png)]({content[0]}.svg)"
    if kind == "list":
        return "\n".join(f"- {_md_text(item)}" for item in content)
    if kind == "code":  # indented, not fenced: no text can end it
        return f"    {content}"
    return {"title": "# ", "heading": "## ", "text": ""}[kind] + _md_text(content)


def _html(kind: str, content) -> str:
    if kind in ("numbers", "facts"):
        lines = ["".join(f"<td>{html.escape(cell)}</td>" for cell in line) for line in content]
        lines[0] = lines[0].replace("td>", "th>")
        body = "".join(f"<tr>{line}</tr>\n" for line in lines)
        return f'<div class="scroll" tabindex="0"><table class="{kind}">{body}</table></div>'
    if kind == "plot":
        data = base64.b64encode(content[1]["svg"]).decode()
        title = html.escape(content[1]["title"])
        return f'<figure><img alt="{title}" src="data:image/svg+xml;base64,{data}"></figure>'
    if kind == "list":
        return f"<ul>{''.join(f'<li>{html.escape(item)}</li>' for item in content)}</ul>"
    tag = {"title": "h1", "heading": "h2", "code": "pre", "text": "p"}[kind]
    return f"<{tag}>{html.escape(content)}</{tag}>"


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


def write_report(
    out: Path, *, machine: dict, stages: str, settings: dict, rows: list[dict], runs: Runs, title: str
) -> Path:
    """Write report.json, report.md, report.html and the plots into `out`; returns the path of the HTML.

    Everything is rendered before the first file is written. Plots of an earlier report that this one does not have
    are removed.
    """
    out = Path(out)
    report = {"title": title, "machine": machine, "stages": stages, "settings": settings}
    report = _plain({**report, "rows": with_ratios(rows)})
    drawn, reasons = plots.draw(report["rows"], runs, report["settings"])
    blocks = list(_blocks(report, drawn, reasons))
    body = "\n".join(_html(*block) for block in blocks)
    files = {f"{name}.{end}": plot[end] for name, plot in drawn.items() for end in ("png", "svg")}
    texts = {
        "report.json": json.dumps(report, indent=2) + "\n",
        "report.md": "\n\n".join(_md(*block) for block in blocks) + "\n",
        "report.html": _PAGE % (html.escape(one_line(report["title"])), PAGE_STYLE, body),
    }
    files |= {name: text.encode("utf-8", "replace") for name, text in texts.items()}
    try:
        make_folder(out)
        for name, content in files.items():
            publish(out / name, content)
        for stale in {f"{name}.{end}" for name in plots.NAMES for end in ("png", "svg")} - set(files):
            (out / stale).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {out} ({error.strerror})", "name another folder") from error
    return out / "report.html"
