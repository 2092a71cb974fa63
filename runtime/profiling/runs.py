"""Run folders -> rows of a report."""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path

from beton.errors import UserError
from runtime.training import formats


def load_run(folder: Path) -> dict:
    """A finished run folder as {"folder", "loader", "params", "machine", "versions", "epochs", "final"}.

    "params" is {"section.name": value}; "epochs" the log lines by ascending epoch (times in seconds,
    accuracies as fractions), of an epoch logged twice the later; "final" the line marked so, or None.
    """
    folder = Path(folder)
    try:
        facts = json.loads((folder / "params.json").read_text("utf-8"))
        log = (folder / "log.jsonl").read_bytes().decode("utf-8", "replace")
        facts, lines = formats.upgraded_run(facts, list(_log_lines(log)))
        facts = {key: facts.get(key) or {} for key in ("params", "machine", "versions")}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{folder} is no run folder ({error})", "give one that training wrote") from error
    epochs = {line["epoch"]: line for line in lines if not line.get("final")}
    if not epochs:
        raise UserError(f"{folder} has no finished epoch", "let the run finish an epoch, then report again")
    final = next((line for line in reversed(lines) if line.get("final")), None)
    epochs = [epochs[epoch] for epoch in sorted(epochs)]
    return {
        "folder": str(folder),
        "loader": epochs[-1].get("loader") or "unknown",
        **facts,
        "epochs": epochs,
        "final": final,
    }


def collect(folders: list[str]) -> tuple[list[dict], dict[str, list[dict]]]:
    """The rows of finished run folders, and the runs by loader."""
    runs: dict[str, list[dict]] = {}
    for folder in folders:
        run = load_run(Path(folder))
        runs.setdefault(run["loader"], []).append(run)
    return [row_from_runs(label, of_label) for label, of_label in runs.items()], runs


def row_from_runs(label: str, runs: list[dict]) -> dict:
    """The row of protocol 'train' that `runs` (of `load_run`) make together.

    images_per_second and seconds_per_epoch (training, without evaluation) pool the epochs of all runs,
    without the first of each run that has more (it starts and compiles); n counts epochs. top_1 is of
    the last evaluated epoch of each run; n counts runs. wait_share is a fraction of the training time.
    """
    if not runs:
        raise UserError(f"there is no run of '{label}'", "give at least one run folder")
    steady = [line for run in runs for line in (run["epochs"][1:] or run["epochs"])]
    timed = [line for line in steady if line.get("train_time") and line.get("wait_time") is not None]
    waited, trained = (sum(line[key] for line in timed) for key in ("wait_time", "train_time"))
    starts = spread([run["epochs"][0].get("first_batch_time") for run in runs])
    return {
        "loader": label,
        "protocol": "train",
        "values": [_rate(run) for run in runs],
        "images_per_second": spread([line.get("images_per_second") for line in steady]),
        "cpu_seconds_per_image": None,
        "first_batch_seconds": starts and starts["median"],
        "peak_memory_bytes": None,
        "wait_share": waited / trained if timed else None,
        "top_1": spread([_last_top_1(run) for run in runs], "mean", statistics.fmean),
        "seconds_per_epoch": spread([line.get("train_time") for line in steady]),
    }


def _rate(run: dict) -> float | None:
    """Median images per second of a run's epochs but the first: what a comparison takes as one measurement."""
    rates = [line.get("images_per_second") for line in run["epochs"][1:] or run["epochs"]]
    rates = [rate for rate in rates if rate]
    return statistics.median(rates) if rates else None


def spread(values: list, name: str = "median", middle=statistics.median) -> dict | None:
    """Median (or `name`: `middle`), least, greatest and number of the values that are not None; None without any."""
    values = [value for value in values if value is not None]
    if not values:
        return None
    return {name: middle(values), "min": min(values), "max": max(values), "n": len(values)}


def _log_lines(log: str) -> Iterator[dict]:
    """The lines of a log that hold an epoch. A line that a kill truncated is skipped."""
    for text in log.split("\n"):
        # A resumed run may have appended to the truncated line
        for start in (0, text.rfind('{"epoch"')):
            try:
                line = json.loads(text[start:])
            except ValueError:
                continue
            if isinstance(line, dict) and type(line.get("epoch")) is int:
                yield line
            break


def _last_top_1(run: dict) -> float | None:
    """Of the last evaluated epoch; the final line counts when its epoch has no evaluation of its own."""
    final = run.get("final")
    lines = [final, *run["epochs"]] if final else run["epochs"]
    # The sort is stable: of two lines of one epoch the ordinary one stays last.
    lines = sorted((line for line in lines if line.get("top_1") is not None), key=lambda line: line["epoch"])
    return lines[-1]["top_1"] if lines else None
