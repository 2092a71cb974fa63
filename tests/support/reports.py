"""Made-up run folders, rows and reports of them."""

import json

from runtime.profiling import report
from runtime.training import formats


def line(epoch, seconds, top_1=None, **more):
    """A log line of 1000 images, 10 % of its time spent waiting."""
    made = {"epoch": epoch, "res": 64, "lr": 0.1, "train_loss": 3.0 - epoch / 4, "train_time": seconds}
    made |= {"wait_time": seconds / 10, "images": 1000, "images_per_second": 1000 / seconds, "loader": "beton"}
    made |= {"top_1": top_1, "val_loss": None if top_1 is None else 2.5 - top_1, "val_time": 1.0}
    return made | more


def write_run(folder, lines, tail="", **more):
    folder.mkdir()
    made = {"format": formats.RUN_FOLDER, "params": {"data.workers": 4}, "origin": {}, "versions": {"torch": "2"}}
    made |= {"machine": {"cpus": 8}} | more
    (folder / "params.json").write_text(json.dumps(made))
    text = "".join(each if isinstance(each, str) else json.dumps(each) + "\n" for each in lines)
    (folder / "log.jsonl").write_text(text + tail)
    return folder


def row(loader, speed, protocol="load", **more):
    made = {"loader": loader, "protocol": protocol, "cpu_seconds_per_image": 0.00125}
    made["images_per_second"] = {"median": speed, "min": speed - 50, "max": speed + 50, "n": 5}
    made |= {"first_batch_seconds": 1.5, "peak_memory_bytes": 250_000_000, "wait_share": 0.5, "top_1": None}
    return made | {"seconds_per_epoch": None} | more


def seconds(median):
    return {"median": median, "min": median - 0.5, "max": median + 0.5, "n": 3}


def write(out, rows, runs=None, **more):
    given = {"machine": {"cpu": "fast", "versions": {"torch": "2.9"}}, "stages": "rrc(176)|flip"}
    given |= {
        "settings": {"images": 1000, "workers": 4, "leaves_out": ["Other machines."]},
        "title": "Loaders",
    }
    return report.write_report(out, rows=rows, runs=runs or {}, **(given | more))
