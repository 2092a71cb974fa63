"""Reports from made-up run folders and rows: the expected numbers are worked out by hand here."""

import base64
import io
import json
import math
import re

import pytest
from matplotlib.text import Text
from PIL import Image

from beton.errors import UserError
from runtime.profiling import plots, report, runs, schema
from tests.support.reports import line, row, seconds, write, write_run

PLOTS = ("runtime_per_epoch", "accuracy_per_epoch", "loss_per_epoch")
HOSTILE = "<script>alert('&\"')</script>|$\\frac$ [a](javascript:b)\nnext\x1b[31m"


def cells(markdown, loader):
    found = next(text for text in markdown.splitlines() if text.startswith(f"| {loader} |"))
    return [cell.strip() for cell in found.strip("|").split(" | ")]


@pytest.fixture
def two_runs(tmp_path):
    one = [line(0, 9.0, 0.1, first_batch_time=3.0), line(1, 4.0), line(2, 5.0, 0.50)]
    two = [line(0, 8.0, 0.2, first_batch_time=5.0), line(1, 2.0), line(2, 10.0, 0.60)]
    return [runs.load_run(write_run(tmp_path / f"run{i}", lines)) for i, lines in enumerate((one, two))]


def test_load_run_reads_what_a_run_wrote(tmp_path):
    run = runs.load_run(write_run(tmp_path / "run", [line(0, 9.0), line(1, 4.0, 0.5)]))
    assert run["folder"] == str(tmp_path / "run")
    assert run["loader"] == "beton"
    assert run["params"] == {"data.workers": 4}
    assert run["versions"] == {"torch": "2"} and run["machine"] == {"cpus": 8}
    assert run["epochs"] == [line(0, 9.0), line(1, 4.0, 0.5)]


@pytest.mark.parametrize(
    ("version", "then", "now"),
    [(None, "ffcv", "beton"), (None, "ffcv_stock", "ffcv"), (None, "torch", "torch"), (2, "ffcv", "ffcv")],
)
def test_the_loaders_of_older_runs_have_their_present_names(tmp_path, version, then, now):
    more = {"format": version, "params": {"data.loader": then}} if version else {"params": {"data.loader": then}}
    folder = write_run(tmp_path / "run", [line(0, 9.0, loader=then), line(1, 4.0, loader=then)], **more)
    if version is None:
        noted = json.loads((folder / "params.json").read_text())
        del noted["format"]
        (folder / "params.json").write_text(json.dumps(noted))
    run = runs.load_run(folder)
    assert (run["loader"], run["params"]["data.loader"]) == (now, now)
    assert [each["loader"] for each in run["epochs"]] == [now, now]
    rows, by_loader = runs.collect([str(folder)])
    assert [row["loader"] for row in rows] == list(by_loader) == [now]


def test_of_an_epoch_logged_twice_the_later_line_counts(tmp_path):
    lines = [line(0, 9.0), line(1, 4.0), line(2, 4.0), line(1, 5.0), line(2, 6.0), line(3, 7.0)]
    run = runs.load_run(write_run(tmp_path / "run", lines))
    assert [line["train_time"] for line in run["epochs"]] == [9.0, 5.0, 6.0, 7.0]


def test_a_line_cut_off_by_a_kill_is_ignored(tmp_path):
    cut = json.dumps(line(2, 4.0))[:40]
    run = runs.load_run(write_run(tmp_path / "cut", [line(0, 9.0), line(1, 4.0)], tail=cut))
    assert [line["epoch"] for line in run["epochs"]] == [0, 1]
    # Resumed: on a new line, and right behind what was cut off.
    for name, joint in (("lined", "\n"), ("joined", "")):
        lines = [line(0, 9.0), line(1, 4.0), cut + joint, line(2, 6.0)]
        run = runs.load_run(write_run(tmp_path / name, lines))
        assert [line["train_time"] for line in run["epochs"]] == [9.0, 4.0, 6.0]


def test_final_line_makes_no_epoch_but_tells_an_accuracy_not_told_before(tmp_path):
    lines = [line(0, 9.0, 0.1), line(1, 4.0), {"epoch": 1, "top_1": 0.7, "final": True}]
    run = runs.load_run(write_run(tmp_path / "run", lines))
    assert run["epochs"] == [line(0, 9.0, 0.1), line(1, 4.0)]
    assert runs.row_from_runs("a", [run])["top_1"]["mean"] == 0.7
    lines[1] = line(1, 4.0, 0.6)
    run = runs.load_run(write_run(tmp_path / "made", lines))
    assert runs.row_from_runs("a", [run])["top_1"]["mean"] == 0.6


def test_what_is_no_run_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no run folder"):
        runs.load_run(tmp_path / "nowhere")
    folder = write_run(tmp_path / "empty", [], tail='{"epoch": 0, "tr')
    with pytest.raises(UserError, match="no finished epoch"):
        runs.load_run(folder)
    for text in ("{", "[]"):
        (folder / "params.json").write_text(text)
        with pytest.raises(UserError, match="no run folder"):
            runs.load_run(folder)
    with pytest.raises(UserError, match="no run of 'a'"):
        runs.row_from_runs("a", [])


def test_row_from_runs_leaves_out_the_first_epochs(two_runs):
    made = runs.row_from_runs("beton", two_runs)
    # Epochs 1 and 2 of both: 4, 5, 2 and 10 s for 1000 images, so 250, 200, 500 and 100 images/s.
    assert made["images_per_second"] == {"median": 225.0, "min": 100.0, "max": 500.0, "n": 4}
    assert made["seconds_per_epoch"] == {"median": 4.5, "min": 2.0, "max": 10.0, "n": 4}
    assert made["top_1"] == {"mean": pytest.approx(0.55), "min": 0.5, "max": 0.6, "n": 2}
    assert made["wait_share"] == pytest.approx(0.1)
    assert made["first_batch_seconds"] == 4.0
    assert (made["loader"], made["protocol"]) == ("beton", "train")


def test_row_from_a_run_of_one_epoch_uses_it(tmp_path):
    run = runs.load_run(write_run(tmp_path / "run", [line(0, 8.0)]))
    made = runs.row_from_runs("beton", [run])
    assert made["images_per_second"] == {"median": 125.0, "min": 125.0, "max": 125.0, "n": 1}
    assert made["top_1"] is None and made["first_batch_seconds"] is None


def test_report_of_runs_has_every_file_and_the_right_numbers(tmp_path, two_runs):
    torch = row("torch", 90, "train", top_1={"mean": 0.5, "min": 0.5, "max": 0.5, "n": 1})
    rows = [runs.row_from_runs("beton", two_runs), torch, row("beton", 1000), row("torch", 400)]
    out = tmp_path / "out"
    assert write(out, rows, {"beton": two_runs, "other": two_runs[:1]}) == out / "report.html"

    names = ["report.json", "report.md", "report.html", "rows.csv", "epochs.csv"]
    drawn = (*PLOTS, "images_per_second", "seconds_per_epoch", "ratio")
    names += [f"{name}.{end}" for name in drawn for end in ("png", "svg")]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    made = json.loads((out / "report.json").read_text())
    assert list(made) == list(schema.KEYS) and schema.problems(made) == []
    assert [r["ratio_to_torch"] for r in made["rows"]] == [2.5, 1.0, 2.5, 1.0]
    assert "ratio_to_torch" not in torch  # the caller's rows stay as they are

    text = (out / "report.md").read_text()
    loading, training = text.split("## Measured by protocol load")[1], text.split("## Measured by protocol train")[1]
    assert cells(training, "beton") == [
        *("beton", "225 [100-500] n=4", "2.50", "-", "4.00", "-", "10.0"),
        *("4.50 [2.00-10.00] n=4", "55.00 [50.00-60.00] n=2"),
    ]
    assert cells(training, "torch")[-1] == "50.00 n=1"
    # Columns without a value are left out: of protocol load the accuracy and the seconds per epoch
    assert cells(loading, "beton") == ["beton", "1000 [950-1050] n=5", "2.50", "1.25", "1.50", "250", "50.0"]
    for part in ("    rrc(176)|flip", "| versions.torch | 2.9 |", "| workers | 4 |", "- Other machines."):
        assert part in text.splitlines()
    assert all(f"({name}.png)]({name}.svg)" in text for name in PLOTS)


def test_table_has_the_train_columns_only_when_needed():
    assert "s/epoch" not in report.markdown_table([row("torch", 400)])
    assert "top-1" not in report.markdown_table([row("torch", 400, seconds_per_epoch=seconds(4.0))])
    table = report.terminal_table([row("torch", 400), row("a", 1000)]).splitlines()
    assert table[1].split()[:5] == ["torch", "load", "400", "[350-450]", "n=5"]
    assert len(table) == 3 and len(table[0]) == len(table[1]) == len(table[2])


def test_without_torch_there_is_no_ratio_and_protocols_are_not_mixed():
    assert report.with_ratios([row("a", 100), row("torch", 50, "cached")])[0].get("ratio_to_torch") is None
    assert cells(report.markdown_table([row("a", 100)]), "a")[3] == "-"


def test_numbers_that_are_not_finite_do_not_stop_a_report(tmp_path):
    broken = row("broken", 100, images_per_second={"median": math.nan, "min": 1, "max": 2, "n": 3})
    lines = [line(0, 9.0, 0.1), line(1, 4.0, 0.2, train_loss=math.nan), line(2, 4.0, 0.2)]
    run = runs.load_run(write_run(tmp_path / "run", lines))
    write(tmp_path / "out", [broken, row("torch", 400)], {"a": [run]})
    made = json.loads((tmp_path / "out/report.json").read_text(), parse_constant=pytest.fail)
    assert made["rows"][0]["images_per_second"]["median"] is None
    assert cells((tmp_path / "out/report.md").read_text(), "broken")[1:3] == ["-", "-"]


def test_report_without_runs_says_why_accuracy_is_missing(tmp_path, two_runs):
    out = tmp_path / "out"
    write(out, [row("beton", 1000)], {"beton": two_runs})
    assert (out / "accuracy_per_epoch.png").exists()
    write(out, [row("beton", 1000, seconds_per_epoch=seconds(1.0)), row("torch", 400)])
    kept = {path.stem for path in out.glob("*.png")}
    assert kept == {"images_per_second", "runtime_per_epoch", "ratio"}  # nothing stale from the report before
    for name in ("report.md", "report.html"):
        assert "accuracy and loss need protocol train" in (out / name).read_text()
    assert "Seconds per pass over 1,000 images" in (out / "report.md").read_text()

    write(out, [row("torch", 400)])
    assert not (out / "runtime_per_epoch.svg").exists()
    assert "no row says its seconds per epoch" in (out / "report.md").read_text()


def test_runs_that_were_never_evaluated_have_no_accuracy_plot(tmp_path):
    run = runs.load_run(write_run(tmp_path / "run", [line(0, 9.0), line(1, 4.0)]))
    write(tmp_path / "out", [], {"a": [run]})
    assert {p.stem for p in (tmp_path / "out").glob("*.svg")} == {"runtime_per_epoch", "loss_per_epoch"}
    text = (tmp_path / "out/report.md").read_text()
    assert "no plot of validation accuracy per epoch" in text and "Nothing was measured." in text


def test_skipped_rows_are_listed_apart_with_the_reason(tmp_path):
    skipped = {"loader": "dali", "protocol": "load", "skipped": "needs nvidia-dali"}
    out = write(tmp_path, [row("torch", 400), skipped]).parent
    table, after = (out / "report.md").read_text().split("## Settings")
    assert "dali" not in table
    assert "| dali | load | needs nvidia-dali |" in after
    assert "needs nvidia-dali" in (out / "report.html").read_text()
    assert json.loads((out / "report.json").read_text())["rows"][1] == skipped


def test_hostile_names_are_text_everywhere(tmp_path, two_runs):
    skipped = {"loader": HOSTILE, "protocol": HOSTILE, "skipped": HOSTILE}
    rows = [row(HOSTILE, 400), row("_hidden", 300, HOSTILE, seconds_per_epoch=seconds(2.0)), skipped]
    given = {"title": HOSTILE, "stages": HOSTILE, "machine": {HOSTILE: HOSTILE}}
    given["settings"] = {HOSTILE: [HOSTILE], "leaves_out": [HOSTILE]}
    for labelled in ({HOSTILE: two_runs, "_hidden": two_runs}, {}):
        out = write(tmp_path, rows, labelled, **given).parent
        page = (out / "report.html").read_text()
        assert "<script" not in page and "&lt;script&gt;" in page and "\x1b" not in page
        text = (out / "report.md").read_text()
        assert not re.search(r"(?m)^(?!    ).*(?<!\\)<script", text)
        assert not re.search(r"(?m)^(?!    ).*\[a\]\(j", text) and "\x1b" not in text
        for svg in out.glob("*.svg"):
            assert "<script" not in svg.read_text()
    table = report.terminal_table(rows[:1])
    assert len(table.splitlines()) == 2 and "\x1b" not in table


def test_html_refers_to_nothing_outside_itself(tmp_path, two_runs):
    page = write(tmp_path, [row("beton", 1000), row("torch", 400)], {"beton": two_runs}).read_text()
    assert not re.search(r"https?:|@import|<script|url\(", page)
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources.pop(0) == "data:,"  # the icon: none, which a browser would ask for otherwise
    assert len(sources) == 5
    for source in sources:
        kind, data = source.split(",")
        assert kind == "data:image/svg+xml;base64"
        assert base64.b64decode(data).lstrip().startswith(b"<?xml")
    assert 'name="viewport"' in page and "prefers-color-scheme: dark" in page


def test_pictures_open_and_two_writes_give_the_same_bytes(tmp_path, two_runs):
    rows = [row("beton", 1000), row("torch", 400)]
    for name in ("a", "b"):
        write(tmp_path / name, rows, {"beton": two_runs, "torch": two_runs[:1]})
    for path in sorted((tmp_path / "a").iterdir()):
        content = path.read_bytes()
        assert content == (tmp_path / "b" / path.name).read_bytes(), path.name
        if path.suffix == ".png":
            with Image.open(io.BytesIO(content)) as image:
                image.load()
                assert image.width == 840 and 300 < image.height < 1000
                assert len(image.convert("L").histogram()) == 256 and image.convert("L").getextrema()[0] < 60
        if path.suffix == ".svg":
            assert b"<dc:date>" not in content


def test_many_labels_and_long_runs_are_drawn(tmp_path):
    lines = [line(epoch, 4.0 + epoch % 3, epoch / 100) for epoch in range(88)]
    run = runs.load_run(write_run(tmp_path / "run", lines))
    write(tmp_path / "out", [], {f"loader {i}": [run] for i in range(10)})
    assert (tmp_path / "out/loss_per_epoch.png").stat().st_size > 20_000


def test_what_a_plot_says_above_itself_is_not_cut_off(tmp_path, monkeypatch):
    figures, render = [], plots._render
    monkeypatch.setattr(plots, "_render", lambda fig, title: (figures.append(fig), render(fig, title))[1])
    names = ("a_loader_of_a_long_name_", "torch")
    write(tmp_path / "report", [row(name, 50, seconds_per_epoch=seconds(4)) for name in names])
    assert len(figures) == 3
    for figure in figures:
        (hint,) = [text for text in figure.findobj(Text) if text.get_text().startswith("protocol load")]
        assert hint.get_window_extent(figure.canvas.get_renderer()).x1 <= figure.bbox.x1, hint.get_text()


def test_a_report_that_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="name another folder"):
        write(tmp_path / "file", [row("torch", 400)])


def test_what_spreads_by_more_than_15_percent_is_marked(tmp_path):
    text = write(tmp_path, [row("torch", 400), row("steady", 1000)]).with_suffix(".md").read_text()
    assert "Not to be relied on, as measurements differ by more than 15 %: torch (25 %)." in text


def test_the_verdict_says_that_the_model_is_the_limit(tmp_path):
    """19,132 images/s can be loaded, and 129 are trained."""
    parts = {"compute_time": 7.0, "optimizer_time": 0.6, "transfer_time": 0.0, "compile_time": 0.0, "epoch_time": 9.0}
    parts |= {"wait_time": 0.0, "first_batch_time": 0.05}
    run = runs.load_run(write_run(tmp_path / "run", [line(e, 7.75, 0.5, **parts) for e in range(3)]))
    rows = [row("beton", 19132), runs.row_from_runs("beton", [run])]
    made = report.make_report(
        machine={},
        stages="",
        settings={},
        rows=rows,
        runs={"beton": [run]},
        title="",
        parts={"beton alone": {"read": 1.0}},
    )
    assert made["verdict"]["headline"].startswith("beton: the model limits this run: 84 % of the epoch computing")
    assert made["verdict"]["more"] == [
        "beton alone loads 19132 images/s, and training takes 129: the model is the limit."
    ]
    assert made["breakdown"]["beton"]["forward and backward"] == 7.0 and made["loader_parts"] == {
        "beton alone": {"read": 1.0}
    }


def test_a_loader_that_limits_gets_changes_that_are_computed(tmp_path):
    parts = {"compute_time": 2.0, "optimizer_time": 0.5, "transfer_time": 0.0, "compile_time": 0.0, "epoch_time": 9.5}
    parts |= {"wait_time": 6.0, "first_batch_time": 0.0, "val_time": 0.5, "idle_cores": 1.2}
    run = write_run(tmp_path / "run", [line(e, 9.0, 0.5, loader="torch", **parts) for e in range(3)])
    run = runs.load_run(run)
    run["params"]["data.num_workers"] = 2
    rows = [row("torch", 400), row("beton", 2000), runs.row_from_runs("torch", [run])]
    found = report.make_report(machine={}, stages="", settings={}, rows=rows, runs={"torch": [run]}, title="")[
        "verdict"
    ]
    assert found["headline"].startswith("torch: the loader limits this run: 63 % of the epoch waiting")
    text = "torch alone loads 400 images/s, and training takes 111: the loader is the limit"
    assert found["more"][0] == f"{text}, since it shares the cores with the model."
    first, second, third = found["changes"]
    assert first["text"].startswith("data.num_workers=3") and first["saves"] == pytest.approx(3.0)  # a third of 9 s
    assert second["text"].startswith("evaluate at the end") and third["text"].startswith("data.loader=beton")
    assert third["saves"] == pytest.approx(6.0)
