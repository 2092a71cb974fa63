"""The lines of a training log -> where an epoch's time went, what limits the run, and what would make it shorter.

Nothing is guessed: a change is named only if what it brings can be computed from what was measured. The model: data is
loaded while the model trains, so an epoch takes what the slower of the two takes. Where the trainer waits, the loader
has been busy all the time; a loader that takes `factor` times as long for an image shortens the wait accordingly, down
to what the model takes. On a CPU loader and model share the cores, and both gain where one does less: figures there
are from below.
"""

import statistics
from dataclasses import dataclass

# Part of an epoch -> its name in log.jsonl, in the order in which they are shown
PARTS = {
    "waiting for data": "wait_time",
    "starting the loader": "first_batch_time",
    "copying to the device": "transfer_time",
    "forward and backward": "compute_time",
    "optimizer": "optimizer_time",
    "evaluation": "val_time",
    "compiling": "compile_time",
    "other": "rest",
}
_WAITS, _MODEL = ("waiting for data", "starting the loader"), ("forward and backward", "optimizer")
_MUCH = 0.10  # of an epoch: less is no reason to change anything
_LITTLE = 0.01  # of an epoch: a change that saves less is not named


@dataclass(frozen=True)
class Change:
    """Something to do, and the seconds that it saves in an epoch; `effort`: 0 a setting, 1 another loader, 2 a data set
    that is written again."""

    text: str
    saves: float
    effort: int = 0


@dataclass(frozen=True)
class Alternative:
    """Another way to load, measured beside the present one: it takes `factor` times as long for an image."""

    text: str
    factor: float
    effort: int


def breakdown(lines: list[dict]) -> dict[str, float] | None:
    """Mean seconds of an epoch by part (PARTS), over the lines of a log; they add up to the epoch's wall time.

    The first epoch of several is left out: it starts and compiles. None for logs that do not tell the parts (of
    versions before these were logged).
    """
    lines = [line for line in lines if not line.get("final")]
    lines = [line for line in lines[1:] or lines if line.get("compute_time") is not None]
    if not lines:
        return None
    names = [name for name in PARTS.values() if name != "rest"]
    means = {name: statistics.fmean(line.get(name) or 0.0 for line in lines) for name in names}
    whole = statistics.fmean(seconds_of(line) for line in lines)
    means["rest"] = max(0.0, whole - sum(means.values()))
    return {part: means[name] for part, name in PARTS.items()}


def seconds_of(line: dict) -> float:
    """Wall seconds of a logged epoch: training, evaluation and what was between."""
    return line.get("epoch_time") or line["train_time"] + (line.get("val_time") or 0.0)


def limit(parts: dict[str, float]) -> str:
    """Which of 'loader', 'model', 'copy', 'evaluation', 'compiling', 'other' takes most of an epoch."""
    groups = {
        "loader": sum(parts[part] for part in _WAITS),
        "model": sum(parts[part] for part in _MODEL),
        "copy": parts["copying to the device"],
        "evaluation": parts["evaluation"],
        "compiling": parts["compiling"],
        "other": parts["other"],
    }
    return max(groups, key=groups.__getitem__)


def in_words(parts: dict[str, float]) -> str:
    """The verdict on a run, one sentence."""
    whole = sum(parts.values())
    waits = sum(parts[part] for part in _WAITS)
    computing = sum(parts[part] for part in _MODEL)
    cached = f"with the data cached it would take {seconds(whole - waits)} instead of {seconds(whole)}"
    found = limit(parts)
    if found == "loader":
        return f"the loader limits this run: {_percent(waits, whole)} of the epoch waiting; {cached}"
    about = {
        "model": f"the model limits this run: {_percent(computing, whole)} of the epoch computing",
        "copy": f"copies to the device limit this run: {_percent(parts['copying to the device'], whole)} of the epoch",
        "evaluation": f"evaluation limits this run: {_percent(parts['evaluation'], whole)} of the epoch",
        "compiling": f"compiling limits this run: {_percent(parts['compiling'], whole)} of the epoch",
        "other": f"neither loader nor model limits this run: {_percent(parts['other'], whole)} of the epoch is neither",
    }[found]
    if waits >= _MUCH * whole:
        return f"{about}, {_percent(waits, whole)} waiting; {cached}"
    most = f"no loader can save more than {seconds(waits)} of {seconds(whole)}"
    return f"{about}, {_percent(waits, whole)} waiting; {most}"


def changes(
    parts: dict[str, float],
    workers: int | None = None,
    idle_cores: float | None = None,
    alternatives: list[Alternative] = (),
    shares: dict[str, float] | None = None,
) -> list[Change]:
    """At most three changes, the cheapest first, each with what it saves; [] where none is worth it. Where less than a
    tenth of an epoch is waiting for data, no change of the loader is named.

    `workers`: of the loader; `idle_cores`: on average; `shares`: seconds of a loader's thread for an image by part
    (beton.loading.times).
    """
    whole, found = sum(parts.values()), []
    waits = sum(parts[part] for part in _WAITS) >= _MUCH * whole
    more = int((idle_cores or 0.0) + 0.5)
    ways = [Alternative(a.text, a.factor, a.effort) for a in alternatives]
    if workers and more:
        text = f"data.num_workers={workers + more} ({idle_cores:.1f} cores are idle)"
        ways.insert(0, Alternative(text, workers / (workers + more), 0))
    if shares and shares.get("augment") and sum(shares.values()):
        kept = 1 - shares["augment"] / sum(shares.values())
        ways.append(Alternative("fewer stages behind the crop (data.train_stages), all left out", kept, 1))
    for way in ways if waits else []:
        found.append(Change(way.text, saved(parts, way.factor), way.effort))
    if parts["evaluation"]:
        found.append(Change("evaluate at the end only (logging.log_level=0)", parts["evaluation"], 0))
    found = [change for change in found if change.saves >= _LITTLE * whole]
    return sorted(found, key=lambda change: (change.effort, -change.saves))[:3]


def saved(parts: dict[str, float], factor: float) -> float:
    """Seconds of an epoch that a loader saves which takes `factor` times as long for an image."""
    wait = parts["waiting for data"]
    busy = sum(parts[part] for part in ("copying to the device", *_MODEL, "other"))
    return wait - max(0.0, (wait + busy) * factor - busy)


def of_run(lines: list[dict], workers: int | None = None) -> str | None:
    """The last line that a training run prints; None for a log without the parts."""
    parts = breakdown(lines)
    if parts is None:
        return None
    last = next(line for line in reversed(lines) if line.get("compute_time") is not None)
    told = last.get("loader_seconds_per_image")
    ideas = changes(parts, workers, last.get("idle_cores"), shares=told)
    whole = sum(parts.values())
    texts = [f"{change.text} would save {seconds(change.saves)} of {seconds(whole)}" for change in ideas]
    return "; ".join([in_words(parts), *texts])


def seconds(value: float) -> str:
    """E.g. "0.42 s", "41 s", "12 min", "3.1 h"."""
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if value >= 3 * size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f} s" if value >= 20 else f"{value:.1f} s" if value >= 1 else f"{value:.2f} s"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "0 %"
