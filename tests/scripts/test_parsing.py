"""Whatever a script is given, it ends as one line `error: what; what to do` with status 2, and no traceback.

Here what parsing refuses: every parameter of every script, from its declaration. What it takes: test_values.py.
"""

import subprocess

import pytest

from tests.support.nonsense import (
    LONG,
    declared,
    good_value,
    in_yaml,
    parameters,
    quoted,
    refused_texts,
    refused_values,
    required,
)
from tests.support.scripts import ROOT, assert_user_error, options, wrong

SCRIPTS = declared()
# Scripts without sections; each has a test below
OTHERS = {"benchmarks/_ffcv_api_child.py", "benchmarks/stock_writer.py", "benchmarks/update_readme.py", "setup.py"}


def given(script: str) -> dict[str, str]:
    """What the script cannot do without."""
    takes = parameters(SCRIPTS[script])
    return {key: good_value(takes[key]) for key in required(SCRIPTS[script])}


def test_every_script_is_here():
    scripts = {str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.py"), *ROOT.glob("benchmarks/*.py")]}
    assert scripts == set(SCRIPTS) | OTHERS
    assert len(SCRIPTS) >= 7


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_parameter_refuses_nonsense_on_the_command_line(script):
    cases = []
    for key, takes in parameters(SCRIPTS[script]).items():
        # The others are good, so that it is this one that is refused
        others = options({k: v for k, v in given(script).items() if k != key})
        for text in refused_texts(takes):
            cases.append((script, [*others, f"--{key}={text}"], [key, "give "]))
            if not text.startswith("-"):
                cases.append((script, [f"--{key}", text, *others], [key]))
    assert not wrong(cases)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_parameter_refuses_nonsense_in_a_file(script, tmp_path):
    found = []
    for key, takes in parameters(SCRIPTS[script]).items():
        others = options({k: v for k, v in given(script).items() if k != key})
        texts = refused_texts(takes)  # of which files have another way only until they are read
        values = [*map(quoted, texts[:2] + texts[-1:]), *refused_values(takes)]
        for value in values:
            file = in_yaml(tmp_path, key, value)
            found.append(wrong([(script, [file, *others], [])]))
    assert not "\n".join(filter(None, found))


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_refuses_what_it_does_not_know_and_names_what_is_missing(script, tmp_path):
    """All that the parser refuses: tests/runtime/test_config.py."""
    good, needed = options(given(script)), required(SCRIPTS[script])
    unknown = tmp_path / "unknown.yaml"
    unknown.write_text(f"{next(iter(parameters(SCRIPTS[script]))).split('.')[0]}: {{nonsense: 1}}")
    cases = [(script, [*good, *argv], words) for argv, words in (
        (["--nonsense=1"], ["unknown option '--nonsense'"]),
        (["nonsense"], ["unexpected argument 'nonsense'"]),
        ([f"--config-file={unknown}"], ["unknown key"]),
        ([f"--config-file={tmp_path}/missing.yaml"], ["missing.yaml"]),
    )]  # fmt: skip
    for each in needed:
        rest = options({k: v for k, v in given(script).items() if k != each})
        cases += [(script, rest, ["missing", each]), (script, [*rest, f"--{each}=null"], ["missing", each])]
    assert not wrong([*cases, (script, [], ["missing", *needed])])


# --- Scripts without sections

GENERATED = "beton/sources/generated.py"


def words_of_the_writer(folder):
    good = [folder, folder / "a.beton", "jpg", "0", "90", "2"]
    yield from ([], ["--help"], good[:5], [*good, "1"])
    for place, value in [(0, "missing"), (0, ""), (0, "setup.py"), (1, folder), (1, "missing/a.beton"), (2, "JPG")]:
        yield [*good[:place], value, *good[place + 1 :]]
    for place in (3, 4, 5):
        for value in ("", "abc", "1.5", "nan", "-1", "65536", "1" + "0" * 18, "9" * 5000, LONG):
            yield [*good[:place], value, *good[place + 1 :]]


@pytest.mark.parametrize("argv", [["x"], ["--check", "x"], ["--chek"], ["--"], [""], [LONG]])
def test_the_words_of_update_readme(argv):
    assert not wrong([("benchmarks/update_readme.py", argv, ["unexpected"])])


def test_the_options_of_the_generated_photos(tmp_path, capsys):
    from beton.sources import generated

    out = str(tmp_path / "photos")
    (tmp_path / "file").touch()
    cases = [[], [out, "x"], ["--nonsense"], [out, "--nonsense=1"], [out, "--", "x"], [out, "--train"]]
    cases += [[str(tmp_path)], [str(tmp_path / "file")], [str(tmp_path / "file" / "below")], ["/proc/photos"]]
    cases += [[LONG], ["a\nb" + LONG]]
    numbers = ["", "abc", "1.5", "nan", "-1", "1" + "0" * 18, "1" + "0" * 400, "9" * 5000, LONG, "[1]"]
    cases += [[out, f"--{name}={value}"] for name in ("train", "val", "seed", "workers") for value in numbers]
    cases += [[out, f"--{name}=0"] for name in ("train", "val", "workers")]
    for argv in cases:
        status, err = generated.main(argv), capsys.readouterr().err
        assert (status, err.count("\n"), err[:7]) == (2, 1, "error: "), (argv, err)
        assert "; " in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("argv", "word"), [
    ([], "wants one loader"), (["beton", "x"], "wants one loader"), (["betn"], "did you mean 'beton'"),
])  # fmt: skip
def test_the_word_of_measure(argv, word):
    assert not wrong([("runtime/profiling/measure.py", argv, [word])])


@pytest.mark.parametrize("argv, environment", [
    (["write_imagenet.sh"], {}),
    (["write_imagenet.sh", "500", "0.5", "90"], {}),
    (["write_imagenet.sh", "500", "0.5", "90"], {"IMAGENET_DIR": "x"}),
    (["write_imagenet.sh", "500", "0.5", "90"], {"IMAGENET_DIR": "x", "WRITE_DIR": "setup.py/x", "PYTHON": "bash"}),
    (["write_imagenet.sh", "500", "0.5", "90"], {"IMAGENET_DIR": "x", "WRITE_DIR": ".", "PYTHON": "nowhere"}),
    (["run_demo.sh", "--epochs"], {}),
    (["run_demo.sh", "nonsense", "1"], {}),
    (["run_demo.sh", "--data", "setup.py"], {}),
    (["run_demo.sh", "--config", "missing.yaml"], {}),
    *((["run_demo.sh", f"--{name}", value], {}) for name in ("epochs", "rounds", "workers", "max-side")
      for value in ("abc", "0", "-1", "1.5", "1" + "0" * 18)),
    (["setup.sh", "nonsense"], {}),
    (["setup.sh"], {"PYTHON": "nowhere"}),
])  # fmt: skip
def test_shell_scripts(argv, environment):
    path = "/usr/bin:/bin"
    done = subprocess.run(["bash", *argv], cwd=ROOT, env={"PATH": path, **environment}, capture_output=True, text=True)
    assert_user_error(done)
