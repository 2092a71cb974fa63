"""Reports side by side: what is said of a difference, and what is refused or marked."""

import copy
import json
import math
import random
import statistics

import pytest

from beton.errors import UserError
from runtime.profiling import compare, schema
from runtime.profiling.report import make_report
from tests.support.scripts import assert_user_error, here

STEADY = [1000.0, 1010.0, 990.0, 1005.0, 995.0, 1002.0, 998.0]


def row(loader, values, protocol="load"):
    spread = {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}
    return {"loader": loader, "protocol": protocol, "images_per_second": spread, "values": values}


def report(*rows, **more):
    settings = {"profile.batch_size": 128, "profile.num_workers": 2, "profile.in_memory": True}
    made = make_report(
        machine={"cpu": "fast", "cores": 2, "versions": {"torch": "2.9"}}, stages="rrc(224)|flip|normalize",
        settings=settings, rows=list(rows), runs={}, title="A", data={"photos": 10, "photos_digest": "aa"},
    )  # fmt: skip
    return made | more


def words(before, after):
    return compare.difference(before, after)["words"]


def test_a_difference_is_told_with_its_margin():
    text = words(STEADY, [1.08 * value for value in STEADY])
    assert text.startswith("faster by 8.0 % +- 0.") and text.endswith("n=7")
    assert words([1.08 * value for value in STEADY], STEADY).startswith("slower by 7.4 %")


def test_the_interval_holds_the_true_ratio_in_95_of_100_comparisons():
    """Of log-normal measurements, of which one side spreads three times as much."""
    draw, held, trials = random.Random(0), 0, 2000
    for _ in range(trials):
        before = [math.exp(draw.gauss(0, 0.01)) for _ in range(4)]
        after = [1.03 * math.exp(draw.gauss(0, 0.03)) for _ in range(7)]
        found = compare.difference(before, after)
        held += found["low"] <= 1.03 <= found["high"]
    assert 0.93 <= held / trials <= 0.97


@pytest.mark.parametrize(
    ("freedom", "t"), [(1, 12.706), (3, 3.182), (7.5, 2.333), (11, 2.201), (40, 2.021), (500, 1.965)]
)
def test_students_t(freedom, t):
    assert compare.t_95(freedom) == pytest.approx(t, abs=0.005)


def test_no_difference_is_claimed_where_none_is_shown():
    assert words(STEADY, STEADY[::-1]).startswith("no difference shown (+0.0 %")
    assert words(STEADY[:2], [2000.0, 2001.0]).startswith("too few measurements to tell (n=2")
    assert words([1000.0] * 3, [1000.0] * 3).startswith("no difference shown")


def test_a_spread_over_15_percent_is_marked_and_nothing_is_claimed():
    text = words(STEADY, [2000.0, 2100.0, 2400.0])
    assert text == "not to be relied on: spread 19 %, more than 15 %"


def test_other_photos_are_refused():
    other = report(row("beton", STEADY), data={"photos": 12, "photos_digest": "bb"})
    with pytest.raises(UserError, match="other photos"):
        compare.compare(["a", "b"], [report(row("beton", STEADY)), other])


def test_other_stages_are_refused_for_load_and_nothing_else():
    rows = row("beton", STEADY), row("beton", STEADY, "train")
    other = report(*rows, stages="center(224)|normalize")
    found = compare.compare(["a", "b"], [report(*rows), other])["rows"]
    assert [line.get("refused") for line in found] == ["other stages", None]
    with pytest.raises(UserError, match="other stages"):
        compare.compare(["a", "b"], [report(rows[0]), report(rows[0], stages="center(9)")])


def test_other_settings_are_refused_or_told():
    base, other = report(row("beton", STEADY)), report(row("beton", STEADY))
    other["settings"]["profile.batch_size"] = 64
    with pytest.raises(UserError, match="another profile.batch_size"):
        compare.compare(["a", "b"], [base, other])
    other = copy.deepcopy(base)
    other["settings"]["profile.num_workers"] = 8
    other["machine"] |= {"cpu": "slow", "versions": {"torch": "3.0"}}
    other["data"] = {}
    notes = " ".join(compare.compare(["a", "b"], [base, other])["notes"])
    for part in ("nothing says that the photos are the same", "another machine (cpu fast before, slow now)",
                 "profile.num_workers 2 before, 8 now", "torch 2.9 -> 3.0"):  # fmt: skip
        assert part in notes


def test_the_command_compares_several_reports_and_writes_the_table(tmp_path):
    for name, factor in (("a", 1.0), ("b", 1.5), ("c", 0.5)):
        (tmp_path / name).mkdir()
        made = report(row("beton", [factor * value for value in STEADY]))
        assert schema.problems(made) == []
        (tmp_path / name / "report.json").write_text(json.dumps(made))
    paths = [tmp_path / "a", tmp_path / "b/report.json", tmp_path / "c"]
    done = here("profile_loaders.py", "compare", *paths, f"--compare.out={tmp_path}/out")
    assert done.returncode == 0, done.stderr
    assert "faster by 50.0 %" in done.stdout and "slower by 50.0 %" in done.stdout
    for name in ("comparison.md", "comparison.html"):
        assert "faster by 50.0 %" in (tmp_path / "out" / name).read_text()
    assert len(json.loads((tmp_path / "out/comparison.json").read_text())["rows"]) == 2


def test_what_is_no_report_is_a_user_error(tmp_path):
    (tmp_path / "a.json").write_text('{"rows": []}')
    assert_user_error(here("profile_loaders.py", "compare", tmp_path / "a.json", tmp_path / "a.json"), "no report")
    assert_user_error(here("profile_loaders.py", "compare", tmp_path / "none.json", tmp_path / "a.json"), "cannot read")
    assert_user_error(here("profile_loaders.py", "compare", tmp_path / "a.json"), "two reports")
