"""Fill the tables of README.md and of docs/ranks.md from the measured JSON files and from the heads of the recipes.

    python benchmarks/update_readme.py [--check]     # --check: only report whether it is up to date

A table stands between one of these lines and `<!-- end -->`:
    <!-- rows FILE.json -->        the rows of a report
    <!-- accuracy FILE.json -->    their accuracies only
    <!-- against FILE.json -->     the comparison with stock FFCV
    <!-- soak FILE.json -->        memory, threads and files over a long run
    <!-- matrix FILE.json -->     what tests/matrix.sh has tried
    <!-- figures FILE.json -->     its rows as they are: what they are called, then their figures
    <!-- recipes -->               the recipes of ImageNet
"""

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from beton.errors import UserError
from runtime.config import run
from runtime.profiling.plots import number
from runtime.profiling.report import markdown_table

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "docs/ranks.md")
_BLOCK = re.compile(
    r"(<!-- ((?:rows|accuracy|against|figures|soak|matrix) \S+|recipes) -->\n).*?(<!-- end -->)", re.DOTALL
)
_HEAD = re.compile(r"# (ResNet-\d+), (\d+) epochs\. .*: (\.\d+) top-1, (\.\d+) top-5, ([\d.]+) minutes on (.*?)[,;]")


def recipes_table() -> str:
    """The recipes of ImageNet with their published results, from the first line of each file."""
    lines = ["| recipe | model | epochs | top-1 | top-5 | minutes | hardware |", "|---|---|---|---|---|---|---|"]
    found = []
    for path in (ROOT / "rn_configs").glob("rn*_epochs.yaml"):
        model, epochs, top_1, top_5, minutes, hardware = _HEAD.match(path.read_text()).groups()
        link = f"[{path.name}](rn_configs/{path.name})"
        found.append(
            (model, -int(epochs), f"| {link} | {model} | {epochs} | {top_1} | {top_5} | {minutes} | {hardware} |")
        )
    return "\n".join(lines + [line for *_, line in sorted(found, key=lambda f: (f[0] != "ResNet-50", f[1]))])


def accuracy_table(rows: list[dict]) -> str:
    """Top-1 of each loader over its seeds."""
    lines = ["| loader | top-1 %: mean [min-max] | seeds |", "|---|---|---|"]
    for row in rows:
        mean, low, high = (100 * row["top_1"][k] for k in ("mean", "min", "max"))
        lines.append(f"| {row['loader']} | {mean:.1f} [{low:.1f}-{high:.1f}] | {row['top_1']['n']} |")
    return "\n".join(lines)


def matrix_table(rows: list[dict]) -> str:
    """Each Python with the oldest and the newest packages."""
    hidden = ("status", "bounds", "seconds")
    names = [name for name in rows[0] if name not in hidden]
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    return "\n".join(lines + [f"| {' | '.join(str(row[name]) for name in names)} |" for row in rows])


_SHORT = {
    "images_per_second": "images/s",
    "seconds_to_first_batch": "first batch s",
    "first_batch_seconds": "first batch s",
}
_SHORT |= {
    "cpu_ms_per_image": "CPU ms/image",
    "share_resident": "of the file in memory",
    "pages_read": "reads of a page",
}
_SHORT |= {"speed_of_random": "of the speed of random order"}


def figures_table(rows: list[dict]) -> str:
    """Rows of names and figures, of which those that _SHORT knows are shown."""
    names = [name for name, value in rows[0].items() if isinstance(value, str) or name in _SHORT]
    texts = [isinstance(rows[0][name], str) for name in names]
    lines = [f"| {' | '.join('' if text else _SHORT[name] for name, text in zip(names, texts, strict=True))} |"]
    lines.append("|" + "".join("---|" if text else "---:|" for text in texts))
    return "\n".join(lines + [f"| {' | '.join(_cell(row[name]) for name in names)} |" for row in rows])


def _cell(value) -> str:
    """A text, a number, or a median [min-max] n."""
    if value is None:
        return "-"
    if not isinstance(value, dict):
        return value.replace("_", " ") if isinstance(value, str) else number(value)
    middle, low, high = (value[key] for key in ("median", "min", "max"))
    return f"{number(middle)} [{number(low, middle)}-{number(high, middle)}] n={value['n']}"


def soak_table(facts: dict) -> str:
    """The result of benchmarks/soak.py."""
    about = f"{facts['settings']['minutes']:g} minutes, {facts['loaders']} loaders, {facts['epochs']} epochs"
    lines = [f"| {about}, {facts['images']} images | first | second | third | last |", "|---|---:|---:|---:|---:|"]
    for name, values in facts["quarters"].items():
        in_bytes = name == "memory_bytes"
        cells = [f"{value / 1e6:.1f} MB" if in_bytes else f"{value:g}" for value in values]
        lines.append(f"| {'memory' if in_bytes else name} | {' | '.join(cells)} |")
    return "\n".join(lines)


# Quantity -> its unit in the table, and the factor from the unit in the JSON
_UNITS = {
    "images_per_second": ("images/s", 1),
    "first_batch_seconds": ("s", 1),
    "peak_memory_bytes": ("MB", 1e-6),
    "bytes_per_pixel": ("bytes a pixel", 1),
    "psnr": ("dB", 1),
}


def against_table(rows: list[dict]) -> str:
    """Each row of benchmarks/against_ffcv.py: both sides, their ratio, and the goal."""
    lines = ["| | here: median [min-max] n | stock FFCV 1.0.2 | here / FFCV | goal | CPU ms/image, here / FFCV |"]
    lines.append("|---|---:|---:|---:|---|---:|")
    for row in rows:
        cells = ["-"] * 3
        if "not_measured" not in row:
            ratio = f"{row['difference']:+.1f} dB" if row["quantity"] == "psnr" else f"{row['ratio']:.2f}"
            cells = [_figure(row, "ours"), _figure(row, "theirs"), ratio]
        cpu = [row.get(f"{whose}_cpu_seconds_per_image") for whose in ("ours", "theirs")]
        times = "-" if None in cpu else " / ".join(number(1e3 * seconds) for seconds in cpu)
        lines.append(f"| {' | '.join([row['what'], *cells, _goal(row), times])} |")
    return "\n".join(lines)


def _figure(row: dict, whose: str) -> str:
    """E.g. "3512 [3401-3600] images/s n=5"."""
    unit, scale = _UNITS[row["quantity"]]
    middle, low, high = (scale * row[whose][key] for key in ("median", "min", "max"))
    spread = f" [{number(low, middle)}-{number(high, middle)}]" if row[whose]["n"] > 1 else ""
    return f"{number(middle)}{spread} {unit} n={row[whose]['n']}"


def _goal(row: dict) -> str:
    """E.g. "at least 2.3: met"."""
    if "not_measured" in row:
        return f"not measured ({row['not_measured']})".replace("|", "\\|")
    if "goal" not in row:
        return "-"
    bound = "at_least" if "at_least" in row["goal"] else "at_most"
    unit = {"ratio": "", "ours": f" {_UNITS[row['quantity']][0]}", "difference": " dB"}[row["goal"]["of"]]
    met = "met" if row["met"] else "**not met**"
    return f"{bound.replace('_', ' ')} {row['goal'][bound]:g}{unit}: {met}"


def filled(text: str) -> str:
    """The text of a page with every table updated."""

    def table(match: re.Match) -> str:
        what = match[2]
        if what == "recipes":
            body = recipes_table()
        elif what.startswith("accuracy"):
            body = accuracy_table(json.loads((ROOT / what.split()[1]).read_text())["rows"])
        elif what.startswith("against"):
            body = against_table(json.loads((ROOT / what.split()[1]).read_text())["rows"])
        elif what.startswith("figures"):
            body = figures_table(json.loads((ROOT / what.split()[1]).read_text())["rows"])
        elif what.startswith("matrix"):
            body = matrix_table(json.loads((ROOT / what.split()[1]).read_text())["rows"])
        elif what.startswith("soak"):
            body = soak_table(json.loads((ROOT / what.split()[1]).read_text()))
        else:
            report = json.loads((ROOT / what.split()[1]).read_text())
            # While loading, the ceiling is to do nothing: a number without meaning
            rows = [r for r in report["rows"] if (r["protocol"], r["loader"]) != ("load", "cached")]
            body = markdown_table(rows).strip()
        return f"{match[1]}\n{body}\n\n{match[3]}"

    return _BLOCK.sub(table, text)


def main(argv: list[str]) -> None:
    """Write the pages, or check them."""
    if argv not in ([], ["--check"]):
        raise UserError(f"unexpected arguments {argv}", "write update_readme.py or update_readme.py --check")
    for name in PAGES:
        old = (ROOT / name).read_text()
        new = filled(old)
        if argv and new != old:
            sys.exit(f"error: {name} is not up to date; run python benchmarks/update_readme.py")
        if new != old:
            (ROOT / name).write_text(new)


if __name__ == "__main__":
    run(main)
