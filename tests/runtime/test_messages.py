"""The library names its arguments in backquotes; the scripts print their parameters instead."""

import sys

import pytest

from beton.errors import UserError
from runtime.config import one_line, run

NAMES = {"on_error": "data.on_error", "workers": "data.num_workers"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("set `on_error`='skip'", "set data.on_error=skip"),
        ("give a smaller `workers`", "give a smaller data.num_workers"),
        ("`resume`=1 continues", "resume=1 continues"),
        ("run `pip install -e .`", "run `pip install -e .`"),
        ("two\nlines \x1b[31mred", "two lines \\x1b[31mred"),
    ],
)
def test_arguments_become_parameters(text, expected):
    assert one_line(text, NAMES) == expected


def test_an_error_of_the_library_ends_a_script(monkeypatch, capsys):
    def main(argv):
        raise UserError("`workers`=0 is none", "set `on_error`='skip'")

    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(SystemExit) as end:
        run(main, NAMES)
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: data.num_workers=0 is none; set data.on_error=skip\n"
