"""Rows and run logs -> plots as PNG and SVG bytes.

The same input gives the same bytes: no dates, salted SVG ids, and matplotlib's own defaults instead of the user's
matplotlibrc. Labels are drawn literally, never as formulas.
"""

import io
import math
import statistics

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

BARS = ("seconds_per_epoch", "ratio", "images_per_second")
CURVES = ("runtime_per_epoch", "accuracy_per_epoch", "loss_per_epoch")
BREAKDOWNS = ("breakdown", "loader_parts")
NAMES = (*BARS, *CURVES, *BREAKDOWNS)
NEEDS_TRAIN = "accuracy and loss need protocol train"

# Okabe and Ito's colours, which most colour-blind readers can distinguish. Nine markers for eight colours:
# 72 labels before a pair repeats.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444", "#B8A800")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "h")
_LINES = ("-", "--", "-.", ":")
_WIDTH = 5.6  # inches: on a phone's page of 358 pixels, text of 11 points is still 10 pixels high
_STYLE = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#dddddd",
    "lines.linewidth": 1.6,
    "lines.markersize": 6,
    "svg.hashsalt": "report",
}


def is_measured(row: dict, key: str) -> bool:
    """Whether `row` has all numbers of the spread `key` ({"median" or "mean", "min", "max", "n"})."""
    return bool(row.get(key)) and all(x is not None and math.isfinite(x) for x in row[key].values())


def number(value: float, like: float | None = None) -> str:
    """`value` with about three digits, or with as many decimals as `like` has."""
    size = abs(value if like is None else like)
    if size < 1:
        return f"{value:.3g}"
    return f"{value:.{0 if size >= 100 else 1 if size >= 10 else 2}f}"


def one_line(text: object) -> str:
    """`text` on a single line without control characters, which would break a table or a terminal."""
    joined = " ".join(str(text).split())
    return "".join(char if char.isprintable() else "?" for char in joined)


def draw(
    rows: list[dict],
    runs: dict[str, list[dict]],
    settings: dict,
    breakdown: dict[str, dict[str, float]] | None = None,
    loader_parts: dict[str, dict[str, float]] | None = None,
) -> tuple[dict[str, dict], list[str]]:
    """Every plot for which `rows`, `runs` and the breakdowns (seconds by part of each label) have the numbers, and a
    line for each that is missing.

    Returns ({name: {"title", "png", "svg"}}, reasons); names are those in `NAMES`, in that order.
    """
    plots, reasons = {}, []
    with matplotlib.style.context(["default", _STYLE]):
        loads = [row for row in rows if row["protocol"] == "load" and is_measured(row, "images_per_second")]
        if loads:
            title = "Images per second while loading"
            hint = "protocol load; median, whisker: min to max; higher is better"
            plots["images_per_second"] = _bars(loads, "images_per_second", title, hint, "images per second", True)
        runs = {label: group for label, group in runs.items() if group}
        if runs:
            _draw_seconds(rows, plots)
            _draw_runs(runs, plots, reasons)
        else:
            _draw_passes(rows, settings, plots, reasons)
        _draw_ratios(rows, plots)
        for name, of, scale, title, unit in (
            ("breakdown", breakdown, 1.0, "Where an epoch's time goes", "seconds per epoch"),
            ("loader_parts", loader_parts, 1e3, "Where the loader's threads spend their time", "ms per image"),
        ):
            if of:
                plots[name] = _stacked(of, scale, title, unit)
    return {name: plots[name] for name in NAMES if name in plots}, reasons


def _draw_seconds(rows: list[dict], plots: dict) -> None:
    """Seconds of a training epoch; of the first recipe where there are several."""
    timed = [r for r in rows if r["protocol"].startswith("train") and is_measured(r, "seconds_per_epoch")]
    timed = [row for row in timed if row["protocol"] == timed[0]["protocol"]]
    if timed:
        hint = f"protocol {one_line(timed[0]['protocol'])}, without evaluation; whisker: min to max"
        plots["seconds_per_epoch"] = _bars(timed, "seconds_per_epoch", "Seconds per epoch", hint, "seconds", False)


def _draw_ratios(rows: list[dict], plots: dict) -> None:
    """Images per second in multiples of the standard loader's, of one protocol: train where it was measured."""
    told = [row for row in rows if row.get("ratio_to_torch") and not row.get("skipped")]
    protocols = [row["protocol"] for row in told]
    protocol = next((p for p in protocols if p.startswith("train")), protocols[0] if protocols else None)
    told = [{**row, "ratio": dict.fromkeys(("median", "min", "max"), row["ratio_to_torch"]) | {"n": 1}}
            for row in told if row["protocol"] == protocol]  # fmt: skip
    if len(told) > 1:
        title = "Times the standard loader (torch)"
        hint = f"protocol {one_line(protocol)}, images per second; higher is better"
        plots["ratio"] = _bars(told, "ratio", title, hint, "times as many images per second", True)


def _stacked(of: dict[str, dict[str, float]], scale: float, title: str, unit: str) -> dict:
    """Horizontal bars made of parts, one for each label."""
    fig, axes = _figure(title, "the parts add up to the whole", height=2.5 + 0.5 * len(of))
    left, positions = [0.0] * len(of), range(len(of))
    whole = max(sum(parts.values()) for parts in of.values()) or 1.0
    names = list(dict.fromkeys(part for parts in of.values() for part in parts))
    names = [name for name in names if any(parts.get(name, 0.0) > 0.002 * whole for parts in of.values())]
    for index, name in enumerate(names):
        values = [parts.get(name, 0.0) * scale for parts in of.values()]
        axes.barh(positions, values, left=left, height=0.62, color=_COLOURS[index], label=_label(name))
        left = [sum(pair) for pair in zip(left, values, strict=True)]
    for y, total in zip(positions, left, strict=True):
        axes.annotate(number(total), (total, y), (5, 0), textcoords="offset points", va="center", fontsize=10)
    axes.set_yticks(positions, [_label(label) for label in of], parse_math=False)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, (max(left) or 1.0) * 1.15)
    axes.set_xlabel(unit)
    fig.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=10)
    return _render(fig, title)


def _draw_runs(runs: dict[str, list[dict]], plots: dict, reasons: list[str]) -> None:
    """The three plots with epochs on the x axis."""
    band = "line: mean of the runs, band: min to max; " if max(map(len, runs.values())) > 1 else ""
    times = [("train_time", 1.0, None, "")]
    accuracies = [("top_1", 100.0, None, "")]
    losses = [("val_loss", 1.0, "-", " validation"), ("train_loss", 1.0, "--", " training")]
    for name, title, better, unit, series in (
        ("runtime_per_epoch", "Training time per epoch", "lower", "seconds per epoch", times),
        ("accuracy_per_epoch", "Validation accuracy per epoch", "higher", "top-1 accuracy in %", accuracies),
        ("loss_per_epoch", "Loss per epoch", "lower", "loss (mean per image)", losses),
    ):
        hint = f"{band}{better} is better"
        if name == "loss_per_epoch":
            hint = f"solid: validation, dashed: training\n{hint}"
        plot = _lines(runs, series, title, hint, unit, from_zero=name == "runtime_per_epoch")
        if plot:
            plots[name] = plot
        else:
            reasons.append(f"no plot of {title.lower()}: no epoch of these runs logged it")


def _draw_passes(rows: list[dict], settings: dict, plots: dict, reasons: list[str]) -> None:
    """Without runs: seconds per pass over the images, of one protocol only."""
    timed = [row for row in rows if is_measured(row, "seconds_per_epoch")]
    if timed:
        protocols = [row["protocol"] for row in timed]
        protocol = "load" if "load" in protocols else protocols[0]
        images = settings.get("images")
        what = f"{images:,} images" if isinstance(images, int) else "the images"
        title = f"Seconds per pass over {what}"
        hint = f"protocol {one_line(protocol)}; median, whisker: min to max; lower is better"
        timed = [row for row in timed if row["protocol"] == protocol]
        plots["runtime_per_epoch"] = _bars(timed, "seconds_per_epoch", title, hint, "seconds per pass", False)
    else:
        reasons.append("no plot of the runtime per epoch: no row says its seconds per epoch")
    reasons.append(NEEDS_TRAIN)


def _lines(runs, series, title, hint, unit, *, from_zero) -> dict | None:
    """A line per label and per (key, scale, line style, suffix) of `series`; None when nothing was logged."""
    fig, axes = _figure(title, hint, height=4.6)
    handles, labels = [], []
    # Series outermost, since the legend fills its columns one after the other.
    for key, scale, line, suffix in series:
        for index, (label, group) in enumerate(runs.items()):
            points = _points(group, key, scale)
            if points:
                handles.append(_line(axes, points, index, line or _LINES[index % len(_LINES)]))
                count = f" ({len(group)} runs)" if len(group) > 1 else ""
                labels.append(_label(label) + suffix + count)
    if not handles:
        return None
    axes.set_xlabel("epoch (the first is 0)")
    axes.set_ylabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(axis="y")
    if from_zero:
        axes.set_ylim(bottom=0)
    legend = fig.legend(
        handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=10, handlelength=3.4
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return _render(fig, title)


def _line(axes: Axes, points: list[tuple], index: int, line: str):
    """A mean line with its min-max band; returns the line for the legend."""
    epochs, means, lows, highs = zip(*points, strict=True)
    colour, marker = _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]
    # Not every epoch of a long run has a marker; the shift separates those of equal curves.
    step = math.ceil(len(epochs) / 16)
    marks = {"marker": marker, "markevery": (index % step, step)}
    marks["markerfacecolor"] = "white" if line == "--" else colour
    (handle,) = axes.plot(epochs, means, color=colour, linestyle=line, **marks)
    if lows != highs:
        axes.fill_between(epochs, lows, highs, color=colour, alpha=0.18, linewidth=0)
        if len(epochs) == 1:  # a band is visible from two epochs on
            axes.vlines(epochs, lows, highs, color=colour)
    return handle


def _points(group: list[dict], key: str, scale: float) -> list[tuple]:
    """(epoch, mean, min, max) over the runs that have `key` at that epoch.

    A value that is not finite makes a gap, so that a diverged run is visible.
    """
    by_epoch: dict[int, list[float]] = {}
    for run in group:
        for line in run["epochs"]:
            if line.get(key) is not None:
                by_epoch.setdefault(line["epoch"], []).append(line[key] * scale)
    points = []
    for epoch, values in sorted(by_epoch.items()):
        if all(map(math.isfinite, values)):
            points.append((epoch, statistics.fmean(values), min(values), max(values)))
        else:
            points.append((epoch, math.nan, math.nan, math.nan))
    return points


def _bars(rows: list[dict], key: str, title: str, hint: str, unit: str, higher_first: bool) -> dict:
    """Horizontal bars, the best on top, with min-max whiskers and the value at the end."""
    rows = sorted(rows, key=lambda row: row[key]["median"], reverse=higher_first)
    fig, axes = _figure(title, hint, height=1.5 + 0.5 * len(rows))
    positions = range(len(rows))
    medians = [row[key]["median"] for row in rows]
    whiskers = (
        [max(0.0, row[key]["median"] - row[key]["min"]) for row in rows],
        [max(0.0, row[key]["max"] - row[key]["median"]) for row in rows],
    )
    axes.barh(positions, medians, height=0.62, color=_COLOURS[5])
    axes.errorbar(medians, positions, xerr=whiskers, fmt="none", ecolor="#222222", capsize=4, elinewidth=1.2)
    for y, row in zip(positions, rows, strict=True):
        text = number(row[key]["median"])
        if key == "images_per_second" and row.get("ratio_to_torch") is not None and row["loader"] != "torch":
            text += f" ({row['ratio_to_torch']:.2f}x torch)"
        axes.annotate(text, (row[key]["max"], y), (7, 0), textcoords="offset points", va="center", fontsize=10)
    axes.set_yticks(positions, [_label(row["loader"]) for row in rows], parse_math=False)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    # The space at the right is for the printed values.
    axes.set_xlim(0, max(row[key]["max"] for row in rows) * (1.6 if key == "images_per_second" else 1.2) or 1.0)
    axes.set_xlabel(unit)
    axes.grid(axis="x")
    return _render(fig, title)


def _figure(title: str, hint: str, height: float) -> tuple[Figure, Axes]:
    fig = Figure(figsize=(_WIDTH, height), layout="constrained")
    fig.get_layout_engine().set(w_pad=0.12, h_pad=0.06)
    FigureCanvasAgg(fig)
    axes = fig.add_subplot()
    fig.suptitle(title, x=0.017, ha="left", fontsize=13, fontweight="bold", parse_math=False)
    # Not wrapped by matplotlib, which would read a formula into it; beside long names there is room for 45 characters
    lines = "\n".join(hint.rsplit("; ", 1))
    axes.set_title(lines, loc="left", fontsize=10, color="#444444", parse_math=False)
    return fig, axes


def _label(text: object) -> str:
    """A label that fits into a plot; the space is since matplotlib's legends omit labels that start with "_"."""
    label = one_line(text)
    label = label if len(label) <= 24 else label[:23] + "…"
    return f" {label}" if label.startswith("_") else label


def _render(fig: Figure, title: str) -> dict:
    png, svg = io.BytesIO(), io.BytesIO()
    fig.savefig(png, format="png", dpi=150, metadata={"Software": None})
    fig.set_layout_engine("none")  # the layout is done; repeating it takes as long as drawing
    fig.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return {"title": title, "png": png.getvalue(), "svg": svg.getvalue()}
