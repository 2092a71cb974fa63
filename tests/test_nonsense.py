"""Whatever a script is given, it ends as one line `error: what; what to do` with status 2, and no traceback.

Here what parsing refuses: every parameter of every script, from its declaration. Later: test_nonsense_uses.py.
"""

import subprocess

import pytest
from conftest import ROOT, assert_user_error, run_script
from nonsense import (
    LONG,
    declared,
    end_of,
    good_value,
    in_yaml,
    options,
    parameters,
    quoted,
    refused_texts,
    refused_values,
    required,
    wrong,
)

SCRIPTS = declared()
# Scripts without sections; each has a test below
OTHERS = {"benchmarks/stock_writer.py", "benchmarks/update_readme.py", "setup.py"}


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
def test_options_and_words_that_are_none(script, betons):
    good, key = options(given(script)), next(iter(parameters(SCRIPTS[script])))
    cases = [(script, [*good, *rubbish], words) for rubbish, words in [
        (["--"], ["unknown option '--'"]),
        (["--", f"--{key}=1"], ["unknown option"]),
        (["-"], ["unknown option '-'"]),
        (["---"], ["unknown option"]),
        (["--="], ["unknown option"]),
        (["--=1"], ["unknown option"]),
        (["-x"], ["unknown option '-x'"]),
        (["-1"], ["unknown option '-1'"]),
        (["--nonsense"], ["unknown option '--nonsense'"]),
        (["--nonsense=1"], ["unknown option '--nonsense'"]),
        ([f"--{LONG}=1"], ["unknown option"]),
        ([LONG], ["unexpected argument"]),
        ([""], ["unexpected argument ''"]),
        (["nonsense"], ["unexpected argument 'nonsense'"]),
        (["check"], ["unexpected argument 'check'"]),
        (["\0"], ["unexpected argument"]),
        (["\udcff"], ["unexpected argument"]),
        (["--\udcff=1\n2"], ["unknown option"]),
        ([str(betons["train"])], ["unexpected argument"]),
        ([f"-{key}=1"], ["unknown option"]),
        ([f"--{key}"], ["needs a value"]),
        ([f"--{key}", "--"], ["needs a value"]),
        ([f"--{key}", "-C", "x"], ["needs a value"]),
        ([f"--{key}x=1"], ["unknown option", f"did you mean '--{key}"]),
        ([f"--{key.upper()}=1"], ["unknown option"]),
        ([f"--{key.split('.')[0]}=1"], ["unknown option"]),
        (["-C"], ["-C needs a value"]),
        (["--config-file"], ["--config-file needs a value"]),
    ]]  # fmt: skip
    for each in required(SCRIPTS[script]):
        rest = options({k: v for k, v in given(script).items() if k != each})
        cases += [(script, rest, ["missing", each]), (script, [*rest, f"--{each}=null"], ["missing", each])]
    cases.append((script, [], ["missing", *required(SCRIPTS[script])]))
    assert not wrong(cases)


@pytest.mark.parametrize("script", SCRIPTS)
def test_config_files_of_every_script(script, tmp_path):
    section = next(iter(parameters(SCRIPTS[script]))).split(".")[0]
    contents = {"unknown.yaml": f"{section}: {{nonsense: 1}}", "section.yaml": f"{section}: 3", "a.txt": ""}
    for file, content in contents.items():
        (tmp_path / file).write_text(content)
    good, files = options(given(script)), [*contents, "missing.yaml", ""]
    assert not wrong((script, [*good, f"--config-file={tmp_path / file}"], []) for file in files)


def test_config_files_that_are_none(tmp_path, betons, photo_folder, script="write_dataset.py"):
    key = next(iter(parameters(SCRIPTS[script])))
    section, name = key.split(".")
    contents = {
        "list.yaml": "- 1\n- 2\n",
        "text.yaml": "just text",
        "number.yaml": "1e400",
        "tab.yaml": f"{section}:\n\t{name}: 1\n",
        "open.yaml": f"{section}: [1, 2",
        "nul.yaml": f"{section}: \0",
        "deep.yaml": "[" * 5000,
        "two.yaml": f"{key}: 1\n---\n{key}: 1\n",
        "unknown.yaml": "nonsense: 1",
        "unknown_section.yaml": "nonsense: {a: 1}",
        "unknown_name.yaml": f"{section}: {{nonsense: 1}}",
        "no_section.yaml": f"{section}: 3",
        "sections.yaml": f"{section}: [{name}]",
        "twice.yaml": f"{section}: {{{name}: 1}}\n{section}: {{{name}: 1}}\n",
        "name_twice.yaml": f"{section}:\n  {name}: 1\n  {name}: 1\n",
        "both.yaml": f"{section}: {{{name}: 1}}\n{key}: 1\n",
        "list_as_key.yaml": "? [a]\n: 1\n",
        "itself.yaml": f"{section}: &a\n  {name}: *a\n",
        "a.json": "{'a': 1}",
        "empty.json": "",
        "list.json": "[]",
        "twice.json": f'{{"{key}": 1, "{key}": 1}}',
        "a.txt": f"{key}: 1",
        "none": f"{key}: 1",
        "binary.yaml": b"\xff\xfe\x00data",
    }
    for file, content in contents.items():
        (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "beton.yaml").symlink_to(betons["val"])
    (tmp_path / "photo.yaml").symlink_to(next(photo_folder.rglob("*.jpg")))
    files = [tmp_path / file for file in [*contents, "folder.yaml", "beton.yaml", "photo.yaml", "missing.yaml"]]
    files += ["", ".yaml", f"{LONG}.yaml", "\0.yaml", "\udcff.yaml", "/proc/self/mem.yaml", "a\nb.yaml"]
    files += [betons["train"], photo_folder, tmp_path / "list.yaml/below.yaml", "setup.py"]
    good = options(given(script))
    assert not wrong((script, [*good, f"--config-file={file}"], []) for file in files)


# --- Scripts without sections

GENERATED = "pipelines/sources/generated.py"


def words_of_the_writer(folder):
    good = [folder, folder / "a.beton", "jpg", "0", "90", "2"]
    yield from ([], ["--help"], good[:5], [*good, "1"])
    for place, value in [(0, "missing"), (0, ""), (0, "setup.py"), (1, folder), (1, "missing/a.beton"), (2, "JPG")]:
        yield [*good[:place], value, *good[place + 1 :]]
    for place in (3, 4, 5):
        for value in ("", "abc", "1.5", "nan", "-1", "65536", "1" + "0" * 18, "9" * 5000, LONG):
            yield [*good[:place], value, *good[place + 1 :]]


def test_the_words_of_the_stock_writer(tmp_path, capsys):
    from benchmarks import stock_writer

    for words in words_of_the_writer(tmp_path):
        with pytest.raises(SystemExit) as end:
            stock_writer.arguments([str(word) for word in words])
        err = capsys.readouterr().err
        assert (end.value.code, err.count("\n"), err[:7]) == (2, 1, "error: "), words


@pytest.mark.parametrize("argv", [["x"], ["--check", "x"], ["--chek"], ["--"], [""], [LONG]])
def test_the_words_of_update_readme(argv):
    assert not wrong([("benchmarks/update_readme.py", argv, ["unexpected"])])


def test_the_options_of_the_generated_photos(tmp_path, capsys):
    from pipelines.sources import generated

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


@pytest.mark.parametrize("told", [[], ["x"], ["{}"], ["[]"], ['{"loader": "ffcv", "task": {"x": 1}, "seconds": 1}']])
def test_the_word_of_measure(told):
    assert not wrong([("runtime/measure.py", told, ["runtime.measure"])])


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


# --- As a process of its own it is the same


def test_a_process_ends_as_this_one_does():
    script, argv = "write_dataset.py", ["--cfg.split=a\nb\udcff", f"--cfg.write_path={LONG}"]
    done, here = run_script(script, *argv), end_of(script, *argv)
    assert_user_error(done)
    assert (done.returncode, done.stdout, done.stderr) == (here.status, here.out, here.err)
