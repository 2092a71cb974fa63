"""Fill the tables of README.md and of pages in docs/ from the measured JSON files and from the heads of the recipes.

    python benchmarks/update_readme.py [--check]     # --check: only report whether it is up to date

A table stands between one of these lines and `<!-- end -->` ("Not measured yet." while there is no such file):
    <!-- rows FILE.json -->        the rows of a report
    <!-- accuracy FILE.json -->    their accuracies only
    <!-- against FILE.json -->     the comparison with stock FFCV
    <!-- soak FILE.json -->        memory, threads and files over a long run
    <!-- matrix FILE.json -->     what tests/matrix.sh has tried
    <!-- figures FILE.json -->     its rows as they are: what they are called, then their figures
    <!-- peers FILE.json -->      a report of all loaders, beside docs/peers_elsewhere.json
    <!-- clock FILE.json -->      what the clocks cost
    <!-- plan FILE.json -->       the planner beside what was written and measured
    <!-- plots FILE.json -->      the plots beside a report of benchmarks/vit_levit.py
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
PAGES = ("README.md", *(f"docs/{n}.md" for n in ("library", "peers", "ranks", "report", "transforms", "vit_levit")))
_KINDS = "rows|accuracy|against|figures|soak|matrix|peers|clock|plan|plots"
_BLOCK = re.compile(rf"(<!-- ((?:{_KINDS}) \S+|recipes) -->\n).*?(<!-- end -->)", re.DOTALL)
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
    "photos_per_second": "photos/s",
    "ceiling": "ceiling, images/s",
    "share": "share of it",
    "first_batch_seconds": "first batch s",
    "seconds_to_first_batch": "first batch s",
    "cpu_ms_per_image": "CPU ms/image",
    "cpu_us_per_image": "CPU us/image",
    "cpu_us_per_batch": "CPU us/batch",
    "share_resident": "of the file in memory",
    "pages_read": "reads of a page",
    "speed_of_random": "of the speed of random order",
}


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


_MOST_APART = 4 / 3  # of two ratios that agree


def peers_table(rows: list[dict]) -> str:
    """Every loader of a report, the fastest first, in multiples of the standard loader's images/s, here and elsewhere:
    in bold where the two differ by more than a third."""
    elsewhere = json.loads((ROOT / "docs/peers_elsewhere.json").read_text())["ratio_to_torch"]
    lines = ["| loader | images/s: median [min-max] n | times `torch` | elsewhere | CPU ms an image | first batch s |"]
    lines[0] += " peak MB | difference | other load, cores |"
    lines.append("|---|" + "---:|" * 8)
    measured = [row for row in rows if "skipped" not in row]
    for row in sorted(measured, key=lambda row: -row["images_per_second"]["median"]):
        here, there = row["ratio_to_torch"], elsewhere.get(row["loader"])
        text = "-" if there is None else f"{there:.2f}"
        apart = there is not None and max(here / there, there / here) > _MOST_APART
        cells = [f"`{row['loader']}`", _cell(row["images_per_second"]), f"{here:.2f}", f"**{text}**" if apart else text]
        cells += [number(1e3 * row["cpu_seconds_per_image"]), number(row["first_batch_seconds"])]
        cells += [number(1e-6 * row["peak_memory_bytes"]), f"{row['difference']:.3f}", f"{row['others_cpu']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def clock_table(rows: list[dict]) -> str:
    """The result of benchmarks/clock_cost.py."""
    loader, trainer = rows
    middle, low, high = (f"{100 * loader[key]:+.2f}" for key in ("overhead", "low", "high"))
    lines = ["| | CPU ms an image, median [min-max] n | timed | more, of pairs |", "|---|---:|---:|---:|"]
    times = [_cell(loader[key]) for key in ("cpu_ms_per_image", "cpu_ms_per_image_timed")]
    lines.append(f"| {loader['what'].replace('|', chr(92) + '|')} | {' | '.join(times)} | {middle} % [{low}, {high}] |")
    lines.append(f"| {trainer['what']} | | {number(trainer['us_per_batch'])} microseconds a batch | |")
    return "\n".join(lines)


def plan_table(rows: list[dict]) -> str:
    """The result of benchmarks/plan_check.py."""
    lines = ["| mode, longest side | MB planned | written | ratio | images/s planned [min-max] n | measured | ratio |"]
    lines.append("|---|" + "---:|" * 6)
    for row in rows:
        sizes = [number(1e-6 * row[key]) for key in ("planned_bytes", "bytes")]
        speeds = [_cell(row[key]) for key in ("planned_images_per_second", "images_per_second")]
        ratios = [f"{row[key]:.3f}" for key in ("bytes_ratio", "speed_ratio")]
        lines.append(f"| {' | '.join([row['what'], *sizes, ratios[0], *speeds, ratios[1]])} |")
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


def plots_table(report: Path) -> str:
    """The three plots beside a report, for a page in docs/."""
    names = {name: f"{name}_per_epoch" for name in ("runtime", "accuracy", "loss")}
    base = f"{report.parent.relative_to(ROOT / 'docs')}/{report.stem}"
    return f"| {' | '.join(f'![{name}]({base}_{plot}.png)' for name, plot in names.items())} |\n|---|---|---|"


def rows_table(rows: list[dict]) -> str:
    """The rows of a report."""
    # While loading, the ceiling is to do nothing: a number without meaning
    return markdown_table([r for r in rows if (r["protocol"], r["loader"]) != ("load", "cached")]).strip()


_TABLES = {
    "rows": rows_table, "accuracy": accuracy_table, "against": against_table, "figures": figures_table,
    "matrix": matrix_table, "peers": peers_table, "clock": clock_table, "plan": plan_table,
}  # fmt: skip


def filled(text: str) -> str:
    """The text of a page with every table updated."""

    def table(match: re.Match) -> str:
        kind, _, name = match[2].partition(" ")
        path = ROOT / name
        facts = json.loads(path.read_text()) if path.is_file() else {}
        if kind == "recipes":
            body = recipes_table()
        elif not facts:
            body = "Not measured yet."
        elif kind == "plots":
            body = plots_table(path)
        elif kind == "soak":
            body = soak_table(facts)
        else:
            body = _TABLES[kind](facts["rows"])
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
