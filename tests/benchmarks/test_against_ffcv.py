"""benchmarks/against_ffcv.py: the arithmetic of its rows, its table, and one cheap row measured for real."""

import json
import re

import numpy as np
import pytest

from benchmarks import against_ffcv
from benchmarks.against_ffcv import ROWS, Load, Row, Stored, Write, fidelity, psnr, result
from benchmarks.update_readme import against_table
from beton.errors import UserError
from beton.format.file import BetonFile
from tests.support.betons import write_beton
from tests.support.photos import draw_photos
from tests.support.scripts import forked

OURS, THEIRS = Load("beton", "jpg", "rrc(8)"), Load("ffcv", "jpg", "rrc(8)")


def row(quantity="images_per_second", ours=OURS, theirs=THEIRS, **changes) -> Row:
    return Row("name", "what", quantity, ours, theirs, **changes)


def rounds(quantity, values, cpu=None) -> list[dict]:
    return [{quantity: value} | ({"cpu_seconds_per_image": cpu} if cpu else {}) for value in values]


def speeds(ours, theirs) -> dict:
    kind = "images_per_second"
    return {OURS: rounds(kind, ours, 0.001), THEIRS: rounds(kind, theirs, 0.0025)}


def test_a_ratio_is_that_of_the_medians():
    found = result(row(goal=2.8), speeds([290, 300, 900], [90, 100, 110]), {})
    assert found["ours"] == {"median": 300, "min": 290, "max": 900, "n": 3}
    assert found["ratio"] == 3 and found["met"] is True
    assert found["goal"] == {"of": "ratio", "at_least": 2.8}
    assert (found["ours_cpu_seconds_per_image"], found["theirs_cpu_seconds_per_image"]) == (0.001, 0.0025)
    assert result(row(goal=3.1), speeds([300], [100]), {})["met"] is False
    assert "met" not in result(row(), speeds([300], [100]), {})


def test_a_goal_may_be_at_most_or_of_ours_or_of_the_difference():
    memory = {OURS: rounds("peak_memory_bytes", [40]), THEIRS: rounds("peak_memory_bytes", [100])}
    assert result(row("peak_memory_bytes", goal=0.5, at_least=False), memory, {})["met"]
    first = {OURS: rounds("first_batch_seconds", [9, 1, 1.5]), THEIRS: rounds("first_batch_seconds", [8, 8, 9])}
    goal = {"goal": 2, "at_least": False, "goal_of": "ours"}
    found = result(row("first_batch_seconds", **goal, from_second_round=True), first, {})
    assert found["met"] and found["ours"] == {"median": 1.25, "min": 1, "max": 1.5, "n": 2}
    fidelities = [{"psnr": {"median": level, "min": 30, "max": 45, "n": 9}} for level in (38.5, 37.0)]
    sides = Stored("blocks", True), Stored("stock_jpg", True)
    found = result(
        row("psnr", *sides, goal=0, goal_of="difference"), {s: [f] for s, f in zip(sides, fidelities, strict=True)}, {}
    )
    assert found["met"] and found["difference"] == 1.5 and found["ours"]["n"] == 9


def test_what_was_not_measured_says_why():
    found = result(row(goal=2), {}, {THEIRS: "it hung"})
    assert found["not_measured"] == "it hung" and "met" not in found


def test_the_table_has_a_line_for_each_row():
    good, bad = result(row(goal=2.8), speeds([290, 300, 310], [100]), {}), result(row(goal=3), speeds([30], [20]), {})
    none = result(row(goal=2), {}, {OURS: "no blocks"})
    lines = against_table([good, bad, none]).splitlines()[2:]
    assert lines == [
        "| what | 300 [290-310] images/s n=3 | 100 images/s n=1 | 3.00 | at least 2.8: met | 1.00 / 2.50 |",
        "| what | 30.0 images/s n=1 | 20.0 images/s n=1 | 1.50 | at least 3: **not met** | 1.00 / 2.50 |",
        "| what | - | - | - | not measured (no blocks) | - |",
    ]


def test_rows_have_names_of_their_own_and_files_that_are_written():
    assert len({r.name for r in ROWS}) == len(ROWS)
    files = {side.file for r in ROWS for side in (r.ours, r.theirs) if not isinstance(side, Write)}
    assert files <= {*against_ffcv._FILES, "photos"}


def test_fidelity_is_the_psnr_of_the_stored_photos(tmp_path):
    photos = draw_photos(5, 40, 90)
    raw, jpg = (BetonFile(write_beton(tmp_path / f"{mode}.beton", photos, mode)) for mode in ("raw", "jpg"))
    assert fidelity(raw, raw) == {"median": 99, "min": 99, "max": 99, "n": 5}
    found = fidelity(jpg, raw)
    assert json.loads(json.dumps(found)) == found and all(type(value) in (float, int) for value in found.values())
    assert found["n"] == 5 and 30 < found["min"] <= found["median"] <= found["max"] < 60
    black = np.zeros((2, 2, 3), np.uint8)
    assert psnr(black + 51, black) == pytest.approx(20 * np.log10(5))


def test_one_row_for_real(photo_folder, tmp_path):
    out = tmp_path / "out.json"
    done = forked(
        "benchmarks/against_ffcv.py", f"--bench.photos={photo_folder}/train", f"--bench.out={out}",
        "--bench.only=jpg_bytes", "--bench.rounds=2", f"--bench.work={tmp_path / 'work'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = json.loads(out.read_text())
    assert written["settings"]["photos"] == 120 and written["settings"]["classes"] == 10
    (found,) = written["rows"]
    assert found["name"] == "jpg_bytes" and found["ours"]["n"] == 1
    assert 0.95 < found["ratio"] < 1.1, "the same JPEGs, one with restart markers"
    assert against_table(written["rows"]) in done.stdout
    assert not re.search(r"(?<![\w.])/\w+/", out.read_text()), "no absolute path"
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"jpg.beton", "jpg.beton.json", "stock_jpg.beton"}


def test_an_unknown_row_is_an_error_that_names_the_known_ones(photo_folder, tmp_path):
    argv = [f"--bench.photos={photo_folder}/train", f"--bench.out={tmp_path}/out.json", "--bench.only=jpg,jgp"]
    with pytest.raises(UserError, match="unknown row 'jgp'; use stock_jpg, jpg,"):
        against_ffcv.main(argv)
