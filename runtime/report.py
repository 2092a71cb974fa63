"""Run folders and measured rows -> report.json, report.md, report.html and plots. Measures nothing.

Markdown and HTML are two spellings of one list of blocks (`_blocks`), so they cannot say different
things. The HTML holds its plots and style within itself and loads nothing from anywhere.
"""

import base64
import html
import json
import math
import os
import re
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipelines.beton import partial_path
from pipelines.errors import UserError
from runtime import plots
from runtime.plots import PAGE_STYLE, is_measured, number, one_line

Runs = dict[str, list[dict]]  # those of `load_run`, by label
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>%s</title><style>%s</style></head>
<body>
%s
</body></html>
"""


def load_run(folder: Path) -> dict:
    """A finished run folder as {"folder", "loader", "params", "machine", "versions", "epochs", "final"}.

    "params" is {"section.name": value}; "epochs" the log lines by ascending epoch (times in seconds,
    accuracies as fractions), of an epoch logged twice the later; "final" the line marked so, or None.
    """
    folder = Path(folder)
    try:
        told = json.loads((folder / "params.json").read_text("utf-8"))
        facts = {key: told.get(key) or {} for key in ("params", "machine", "versions")}
        log = (folder / "log.jsonl").read_bytes().decode("utf-8", "replace")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{folder} is no run folder ({error})", "give one that training wrote") from error
    logged = list(_log_lines(log))
    epochs = {line["epoch"]: line for line in logged if not line.get("final")}
    if not epochs:
        raise UserError(f"{folder} has no finished epoch", "let the run finish an epoch, then report again")
    lines = [epochs[epoch] for epoch in sorted(epochs)]
    final = next((line for line in reversed(logged) if line.get("final")), None)
    loader = lines[-1].get("loader") or "unknown"
    return {"folder": str(folder), "loader": loader, **facts, "epochs": lines, "final": final}


def _log_lines(log: str) -> Iterator[dict]:
    """The lines of a log that hold an epoch. A line that a kill cut off is passed over."""
    for text in log.split("\n"):
        # A resumed run may have written on behind the part that the kill left.
        for start in (0, text.rfind('{"epoch"')):
            try:
                line = json.loads(text[start:])
            except ValueError:
                continue
            if isinstance(line, dict) and type(line.get("epoch")) is int:
                yield line
            break


def row_from_runs(label: str, runs: list[dict]) -> dict:
    """The row of protocol 'train' that `runs` (of `load_run`) make together.

    images_per_second and seconds_per_epoch (training, without evaluation) pool the epochs of all runs,
    without the first of each run that has more (it starts and compiles); n counts epochs. top_1 is of
    the last evaluated epoch of each run; n counts runs. wait_share is a fraction of the training time.
    """
    if not runs:
        raise UserError(f"there is no run of '{label}'", "give at least one run folder")
    steady = [line for run in runs for line in (run["epochs"][1:] or run["epochs"])]
    waited = [line for line in steady if line.get("train_time") and line.get("wait_time") is not None]
    share = [sum(line[key] for line in waited) for key in ("wait_time", "train_time")]
    starts = _spread([run["epochs"][0].get("first_batch_time") for run in runs])
    return {
        "loader": label,
        "protocol": "train",
        "images_per_second": _spread([line.get("images_per_second") for line in steady]),
        "cpu_seconds_per_image": None,
        "first_batch_seconds": starts and starts["median"],
        "peak_memory_bytes": None,
        "wait_share": share[0] / share[1] if waited else None,
        "top_1": _spread([_last_top_1(run) for run in runs], "mean", statistics.fmean),
        "seconds_per_epoch": _spread([line.get("train_time") for line in steady]),
    }


def _last_top_1(run: dict) -> float | None:
    """Of the last evaluated epoch; the final line counts when its epoch has no evaluation of its own."""
    final = run.get("final")
    lines = [final, *run["epochs"]] if final else run["epochs"]
    # Stable: of two lines of one epoch the ordinary one stays last.
    lines = sorted((line for line in lines if line.get("top_1") is not None), key=lambda line: line["epoch"])
    return lines[-1]["top_1"] if lines else None


def _spread(values: list, name: str = "median", middle=statistics.median) -> dict | None:
    values = [value for value in values if value is not None]
    if not values:
        return None
    return {name: middle(values), "min": min(values), "max": max(values), "n": len(values)}


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
    """The table of the measured rows as text, its header first; the train columns only when needed."""
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
    """What a report says, in order, as (kind, content)."""
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
    """`text` as Markdown says it literally; brackets stay as they are where they make no link."""
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
    if kind == "code":  # indented rather than fenced: no text can end it
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
    """`value` as JSON can hold it: numpy scalars as numbers, what is not finite as null, the rest as text."""
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

    Everything is made before the first file is touched. Plots that an earlier report left there and
    that this one has not are removed.
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
            _publish(out / name, content)
        for stale in {f"{name}.{end}" for name in plots.NAMES for end in ("png", "svg")} - set(files):
            (out / stale).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {out} ({error.strerror})", "name another folder") from error
    return out / "report.html"


def make_folder(out: Path) -> None:
    """Make the folder of a report, if it is not there; raises UserError where it cannot be written to."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UserError(f"cannot write to {out} ({error.strerror})", "name another folder") from error


def check_file(path: Path) -> None:
    """Raise UserError where a file cannot be written, before the work whose result it is to hold."""
    if os.path.isdir(path):  # Path's own raises PermissionError where it may not look
        raise UserError(f"{path} is a folder", "give the name of a file")
    if not os.path.isdir(path.parent):
        raise UserError(f"there is no folder {path.parent}", "make it, or give another name")
    aside = partial_path(path)
    try:
        aside.touch()
        aside.unlink()
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror})", "name another file") from error


def _publish(path: Path, content: bytes) -> None:
    """Write aside, then rename: a reader sees the old file or the whole new one."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
