"""Rows and runs of a report -> what they say: a headline, further sentences, and the three cheapest changes."""

import statistics
from dataclasses import asdict

from runtime import verdict
from runtime.profiling.plots import is_measured, number

STANDARD, OURS, CEILING = "torch", "beton", "cached"


def breakdowns(runs: dict[str, list[dict]]) -> dict[str, dict[str, float]]:
    """Mean seconds of an epoch by part (runtime.verdict.PARTS) of each label whose runs tell them."""
    found = {}
    for label, group in runs.items():
        parts = [made for run in group if (made := verdict.breakdown(run["epochs"]))]
        if parts:
            found[label] = {part: statistics.fmean(each[part] for each in parts) for part in parts[0]}
    return found


def loader_parts(runs: dict[str, list[dict]]) -> dict[str, dict[str, float]]:
    """Mean seconds of a loader's thread for an image, by part, of each label whose runs have counted them."""
    found = {}
    for label, group in runs.items():
        told = [line["loader_seconds_per_image"] for run in group for line in run["epochs"][1:] or run["epochs"]
                if line.get("loader_seconds_per_image")]  # fmt: skip
        if told:
            found[label] = {part: statistics.fmean(each[part] for each in told) for part in told[0]}
    return found


def findings(rows: list[dict], runs: dict[str, list[dict]], alternatives=()) -> dict:
    """{"headline": text, "more": [text], "changes": [{"text", "saves", "effort"}], "of": label or None}.

    `alternatives`: further ways to load (runtime.verdict.Alternative) for the label that the changes are of, measured
    beside it, e.g. other storage modes.
    """
    measured = [row for row in rows if is_measured(row, "images_per_second")]
    parts = breakdowns(runs)
    if parts:
        return _of_runs(measured, runs, parts, alternatives)
    loads = _loads(measured) or [row for row in measured if row["protocol"] == measured[0]["protocol"]]
    if not loads:
        return {"headline": "Nothing was measured.", "more": [], "changes": [], "of": None}
    headline = _of_loaders(loads)
    more = ["Whether training gets faster depends on the model too: protocol train measures that."]
    more = [] if any(row["protocol"].startswith(("train", "cached")) for row in measured) else more
    return {"headline": headline, "more": more, "changes": [], "of": None}


def _loads(measured: list[dict]) -> list[dict]:
    """The rows of protocol load; of the first number of workers where there are several."""
    found = [row for row in measured if row["protocol"].startswith("load")]
    return [row for row in found if row["protocol"] == found[0]["protocol"]]


def _of_loaders(loads: list[dict]) -> str:
    """Which loader is the fastest, and by how much."""
    best = max(loads, key=lambda row: row["images_per_second"]["median"])
    text = f"{best['loader']} is the fastest: {_rate(best)} images/s"
    standard = next((row for row in loads if row["loader"] == STANDARD), None)
    if standard is None or standard is best:
        others = sorted((row for row in loads if row is not best), key=_median, reverse=True)
        return text + (f", {_median(best) / _median(others[0]):.2g} times {others[0]['loader']}." if others else ".")
    return f"{text}, {_median(best) / _median(standard):.2g} times the standard loader ({STANDARD})."


def _of_runs(measured: list[dict], runs: dict, parts: dict[str, dict[str, float]], alternatives) -> dict:
    # The changes are of the loader with which somebody trains: ours if it is there, and never the ceiling
    labels = [label for label in parts if _loader(runs, label) != CEILING] or list(parts)
    of = next((label for label in labels if _loader(runs, label) == OURS), labels[0])
    loads = {row["loader"]: _median(row) for row in _loads(measured)}
    more = [f"{label}: {verdict.in_words(parts[label])}." for label in labels if label != of]
    own = _loader(runs, of)
    if own in loads:
        consumed = _consumed(runs[of])
        if consumed:
            text = f"{own} alone loads {number(loads[own])} images/s, and training takes {number(consumed)}"
            if verdict.limit(parts[of]) != "loader":
                more.insert(0, f"{text}: the model is the limit.")
            else:  # where it is much faster alone, it lacks something beside the model
                shared = ", since it shares the cores with the model" if loads[own] > 1.25 * consumed else ""
                more.insert(0, f"{text}: the loader is the limit{shared}.")
    ceiling = [label for label in parts if _loader(runs, label) == CEILING]
    if ceiling:
        # On a CPU this tells more than the wait: a loader that shares the cores makes the model slower, too
        least = sum(parts[ceiling[0]].values())
        others = [f"{verdict.seconds(sum(parts[label].values()))} with {label}" for label in labels]
        text = f"Measured with the data cached, an epoch takes {verdict.seconds(least)}; {', '.join(others)}"
        more.append(f"{text}. No loader can save more than the difference.")
    last = runs[of][-1]["epochs"][-1]
    workers = runs[of][-1]["params"].get("data.num_workers")
    ways = [*_other_loaders(own, loads), *alternatives]
    shares = loader_parts(runs).get(of)
    changes = verdict.changes(parts[of], workers, last.get("idle_cores"), ways, shares)
    text = f"{of}: {verdict.in_words(parts[of])}."
    return {"headline": text, "more": more, "changes": [asdict(change) for change in changes], "of": of}


def _other_loaders(own: str, loads: dict[str, float]) -> list[verdict.Alternative]:
    """The fastest loader that protocol load has measured beside this one."""
    others = {name: rate for name, rate in loads.items() if name not in (own, CEILING) and rate > loads.get(own, rate)}
    if not others:
        return []
    name = max(others, key=others.__getitem__)
    text = f"data.loader={name} (alone it loads {others[name] / loads[own]:.2g} times as many images/s)"
    return [verdict.Alternative(text, loads[own] / others[name], 1)]


def _consumed(group: list[dict]) -> float | None:
    """Median images per second of the epochs but the first."""
    rates = [line.get("images_per_second") for run in group for line in run["epochs"][1:] or run["epochs"]]
    rates = [rate for rate in rates if rate]
    return statistics.median(rates) if rates else None


def _loader(runs: dict, label: str) -> str:
    return runs[label][0]["loader"]


def _median(row: dict) -> float:
    return row["images_per_second"]["median"]


def _rate(row: dict) -> str:
    return f"{_median(row):,.0f}" if _median(row) >= 1000 else number(_median(row))
