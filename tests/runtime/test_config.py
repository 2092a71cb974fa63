"""The command line: what is refused, with which words, and what comes back."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from fastargs import Config, Param, Section
from fastargs.validation import And, InRange, OneOf, Or
from hypothesis import given
from hypothesis import strategies as st

from beton.errors import UserError
from runtime.config import BOOL, FLOAT, INT, STR, Bool, between, one_line, one_of, parse
from tests.support.nonsense import LONG
from tests.support.scripts import ENVIRONMENT


def example(required: bool = False) -> Config:
    config = Config()
    Section("data", "the dataset", config_descriptor=config).params(
        train_dataset=Param(STR, "the .beton to train on", required=required),
        val_dataset=Param(STR, "the .beton to validate on", required=required),
        workers=Param(between(INT, 1, 10**6), "decoding threads", default=4),
        in_memory=Param(BOOL, "keep the file in the page cache", default=1),
    )
    Section("lr", "the learning rate", config_descriptor=config).params(
        peak=Param(FLOAT, "at the top of the ramp", default=0.5),
        end=Param(between(FLOAT, -1, 1), "at the end", default=0),
    )
    Section("training", "how to train", config_descriptor=config).params(
        epochs=Param(INT, "passes over the data", default=16),
        note=Param(STR, "kept in the log"),
        optimizer=Param(one_of("sgd", "adamw"), "which one", default="sgd"),
        cache=Param(one_of("on", "off"), "where", default="on"),
        eval_every=Param(Or(INT, one_of("never")), "epochs", default=1),
    )
    return config


def refusal(argv: list[str], config: Config | None = None) -> str:
    with pytest.raises(UserError) as caught:
        parse(config or example(), argv)
    text = one_line(caught.value)
    what, _, to_do = text.partition("; ")
    assert what.strip() and to_do.strip() and text.isprintable()
    return text


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Writes a config file into the working directory and returns its name."""
    monkeypatch.chdir(tmp_path)

    def write(content, name="a.yaml") -> str:
        Path(name).write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return name

    return write


# --- Where values come from


def test_defaults_and_unset():
    settings = parse(example(), [])
    assert settings.data.workers == 4
    assert settings.data.in_memory is True  # the default goes through the checker as well
    assert settings.data.train_dataset is None
    assert settings.flat()["training.note"] is None
    assert isinstance(settings.lr.end, float)
    assert set(settings.origin.values()) == {"default"}
    assert list(settings.flat()) == list(settings.origin)


def test_what_goes_into_files_has_no_secrets_of_urls():
    url = "https://user:word@host/a-1.beton?Signature=abc,https://host/a-2.beton?Signature=def,s3://b/c.beton"
    settings = parse(example(), [f"--data.train_dataset={url}"])
    assert settings.data.train_dataset == url
    assert settings.flat()["data.train_dataset"] == "https://host/a-1.beton,https://host/a-2.beton,s3://b/c.beton"


def test_command_line_over_files_over_defaults(file):
    first = file({"data": {"workers": 8}, "training": {"epochs": 2, "note": "first"}})
    second = file({"training": {"epochs": 3}}, "b.yml")
    argv = ["--training.epochs=5", "--config-file", first, f"--config-file={second}", "--lr.peak", "2"]
    settings = parse(example(), argv)
    assert (settings.data.workers, settings.training.epochs, settings.training.note) == (8, 5, "first")
    assert settings.lr.peak == 2.0
    assert settings.origin["data.workers"] == "a.yaml"
    assert settings.origin["training.epochs"] == settings.origin["lr.peak"] == "command line"
    assert settings.origin["lr.end"] == "default"
    settings = parse(example(), ["-C", first, "-C", second])
    assert (settings.training.epochs, settings.origin["training.epochs"]) == (3, "b.yml")


def test_nothing_but_the_given_words_and_files_is_read(monkeypatch):
    for name in ("training.epochs", "TRAINING_EPOCHS", "epochs"):
        monkeypatch.setenv(name, "99")
    monkeypatch.setattr(sys, "argv", ["x", "--training.epochs=99"])
    config = example()
    for argv, epochs in (([], 16), (["--training.epochs=2"], 2), ([], 16)):  # nor what was parsed before
        assert parse(example(), argv).training.epochs == parse(config, argv).training.epochs == epochs


def test_yaml_nested_and_dotted_and_json(file):
    nested = file({"data": {"workers": 3}})
    dotted = file("data.workers: 3\n", "b.yaml")
    as_json = file(json.dumps({"data": {"workers": 3}, "lr.peak": 5e-5}, indent="\t"), "c.json")
    for name in (nested, dotted, as_json):
        assert parse(example(), ["-C", name]).data.workers == 3
    assert parse(example(), ["-C", as_json]).lr.peak == 5e-5


def test_yaml_anchors_and_merges(file):
    name = file("data: &d {workers: 3, in_memory: no}\nlr: {}\ntraining:\n")
    assert parse(example(), ["-C", name]).data.in_memory is False
    config = example()
    Section("val", "", config_descriptor=config).params(workers=Param(INT), in_memory=Param(BOOL))
    settings = parse(config, ["-C", file("data: &d {workers: 3, in_memory: 0}\nval: {<<: *d, workers: 5}\n")])
    assert (settings.val.workers, settings.val.in_memory) == (5, False)


@pytest.mark.parametrize("content", ["", "# data: {workers: 3}\n", "data:\n", "{}"])
def test_files_that_set_nothing(file, content):
    assert parse(example(), ["-C", file(content)]).data.workers == 4


def test_null_is_back_to_the_default(file):
    first, second = file({"data": {"workers": 8}}), file("data: {workers: null, train_dataset: ~}", "b.yaml")
    settings = parse(example(), ["-C", first, "-C", second])
    assert (settings.data.workers, settings.origin["data.workers"]) == (4, "default")
    settings = parse(example(), ["-C", first, "--data.workers=null", "--data.train_dataset", "null"])
    assert (settings.data.workers, settings.data.train_dataset) == (4, None)


def test_nested_sections():
    config = Config()
    Section("log.wandb", "", config_descriptor=config).params(project=Param(STR))
    assert parse(config, ["--log.wandb.project=x"]).log.wandb.project == "x"


# --- How options are written


def test_last_of_two_equal_options_wins():
    assert parse(example(), ["--lr.peak=1", "--lr.peak", "2"]).lr.peak == 2.0


@pytest.mark.parametrize("argv", [["--lr.end=-0.5"], ["--lr.end", "-0.5"], ["--lr.end", "-5e-1"]])
def test_negative_numbers(argv):
    assert parse(example(), argv).lr.end == -0.5


@pytest.mark.parametrize("value", ["", "a=b", "--odd", " x ", "ünïcode", "True", "12", "-C"])
def test_texts_come_as_they_are(value):
    assert parse(example(), [f"--training.note={value}"]).training.note == value


def test_empty_value_that_stands_apart():
    assert parse(example(), ["--training.note", ""]).training.note == ""
    assert refusal(["--training.epochs="]) == "training.epochs= is not an int; give an int"


@pytest.mark.parametrize("rest", [[], ["--lr.peak=3"], ["--"], ["-C", "a.yaml"]])
def test_option_without_value(rest):
    assert refusal(["-C", *rest]).startswith("-C needs a value; ")
    assert refusal(["--training.epochs", *rest]).startswith("--training.epochs needs a value; ")
    assert refusal(["--config-file", *rest]).startswith("--config-file needs a value; ")


def test_words_that_are_no_options(tmp_path):
    (tmp_path / "a.yaml").touch()
    words = ["train", "", "check", "nonsense", LONG, "\0", "\udcff", str(tmp_path / "a.yaml")]
    for word in words:
        assert refusal([word]).startswith("unexpected argument '")
    assert refusal(["--training.epochs=3", "4"]).startswith("unexpected argument '4'; ")


# --- What is not known


def test_unknown_options():
    assert refusal(["--data.worker=3"]) == "unknown option '--data.worker'; did you mean '--data.workers'?"
    assert refusal(["--dta.workers=3"]) == "unknown option '--dta.workers'; did you mean '--data.workers'?"
    assert refusal(["--peak=3"]) == "unknown option '--peak'; did you mean '--lr.peak'?"
    assert refusal(["--config-fil", "x"]) == "unknown option '--config-fil'; did you mean '--config-file'?"
    assert refusal(["--zzzzzz=3"]) == "unknown option '--zzzzzz'; see --help for the known ones"
    words = [
        "--data=3",
        "-x",
        "-3",
        "--",
        "-",
        "---",
        "--=",
        "--=3",
        "-data.workers=3",
        "--data.train=x",
        "--DATA.workers=1",
    ]
    for word in [*words, f"--{LONG}=1", "--\udcff=1\n2"]:
        assert refusal([word]).startswith("unknown option")
    assert refusal(["--", "--data.workers=3"]).startswith("unknown option")


def test_unknown_keys(file):
    def found(content):
        return refusal(["-C", file(content)])

    assert found({"data": {"worker": 3}}) == "unknown key 'data.worker' in a.yaml; did you mean 'data.workers'?"
    assert found("data.worker: 3") == "unknown key 'data.worker' in a.yaml; did you mean 'data.workers'?"
    assert found({"dta": {"workers": 3}}) == "unknown key 'dta' in a.yaml; did you mean 'data'?"
    assert found("dta.workers: 3") == "unknown key 'dta.workers' in a.yaml; did you mean 'data.workers'?"
    assert found("epochs: 3") == "unknown key 'epochs' in a.yaml; did you mean 'training.epochs'?"
    assert found("zzzzzz: 3") == "unknown key 'zzzzzz' in a.yaml; see --help for the known ones"
    keys = ["zzz: {}", "zzz:", "3: 4", "~: 4", "true: 4", "data: {~: 3}", "data: &a {data: *a}", '"a\\nb": 1']
    for content in [*keys, "zzz: {a: 1}"]:
        assert found(content).startswith("unknown key")


def test_key_given_twice_in_a_file(file):
    assert "'data' is given twice" in refusal(["-C", file("data: {workers: 3}\ndata: {in_memory: 1}\n")])
    assert "line 3: 'workers' is given twice" in refusal(["-C", file("data:\n  workers: 3\n  workers: 4\n")])
    assert "'data.workers' is given twice" in refusal(["-C", file("data: {workers: 3}\ndata.workers: 3\n")])
    assert "'workers' is given twice" in refusal(["-C", file('{"data": {"workers": 3, "workers": 4}}', "a.json")])


def test_all_missing_parameters_in_one_line(file):
    assert refusal([], example(required=True)).startswith("missing data.train_dataset, data.val_dataset; ")
    assert refusal(["--data.val_dataset=x"], example(required=True)).startswith("missing data.train_dataset; ")
    name = file({"data": {"train_dataset": None, "val_dataset": "x"}})
    assert refusal(["-C", name], example(required=True)).startswith("missing data.train_dataset; ")
    settings = parse(example(required=True), ["-C", name, "--data.train_dataset=y"])
    assert (settings.data.train_dataset, settings.data.val_dataset) == ("y", "x")


# --- Values


NUMBERS = ["abc", "true", "nan", "[1]"]
TEXTS = ["12355", "1.10", "text", "2020-01-01", "12:30", "0755", "off"]
VALUES = [
    (INT, ["16", "16.0", "1e3", "-3", "0", "010"], [*NUMBERS, "1.5", "", "inf", "{a: 1}", "1:30"]),
    (FLOAT, ["5e-5", "3", "-.5", "1.0e-3"], [*NUMBERS, ".nan", "inf", "-.inf", "1e400", "False"]),
    (STR, TEXTS, ["true", "False", "[a]", "{a: 1}"]),
    (BOOL, ["1", "0", "true", "False", "YES", "no", "On", "OFF"], ["maybe", "2", "1.0", "", "[1]", "y"]),
]


@pytest.mark.parametrize("checker, good, bad", VALUES)
def test_values_in_yaml(file, checker, good, bad):
    config = Config()
    Section("a", "", config_descriptor=config).params(b=Param(checker, default="1"))
    for text in good:
        value = parse(config, ["-C", file(f"a: {{b: {text}}}")]).a.b
        if checker is STR:
            assert value == text
        elif checker is BOOL:
            assert value is (text.lower() in ("1", "true", "yes", "on"))
        else:
            assert value == float(text)
            assert type(value) is (int if checker is INT else float)
    for text in bad:
        found = refusal(["-C", file(f"a: {{b: {text or repr(text)}}}")], config)
        assert found.startswith("a.b=")
        assert found.endswith(f" is not {checker.help()} (in a.yaml); give {checker.help()}")


@pytest.mark.parametrize("checker, good, bad", VALUES)
def test_values_on_the_command_line_and_in_json(file, checker, good, bad):
    config = Config()
    Section("a", "", config_descriptor=config).params(b=Param(checker))
    for text in good:
        from_yaml = parse(config, ["-C", file(f"a.b: {text}")]).a.b
        assert parse(config, [f"--a.b={text}"]).a.b == from_yaml
        assert parse(config, ["-C", file(json.dumps({"a.b": text}), "a.json")]).a.b == from_yaml
    for text in bad:
        if checker is not STR:
            assert refusal([f"--a.b={text}"], config) == f"a.b={text} is not {checker.help()}; give {checker.help()}"


def test_json_values_of_their_own_types(file):
    config = example()
    name = file('{"data": {"train_dataset": 1.10, "in_memory": false, "workers": 16.0}, "lr.peak": 1}', "a.json")
    settings = parse(config, ["-C", name])
    data = settings.data
    assert (data.train_dataset, data.in_memory, data.workers) == ("1.10", False, 16)
    assert refusal(["-C", file('{"lr.peak": NaN}', "a.json")]).startswith("lr.peak=NaN is not a float (in a.json)")
    assert refusal(["-C", file('{"training.epochs": true}', "a.json")]).startswith("training.epochs=True is not an")


def test_explicit_yaml_tags_do_not_break_out(file):
    for tag in ("int", "float", "timestamp", "bool"):
        refusal(["-C", file(f"training.epochs: !!{tag} abc")])
    assert parse(example(), ["-C", file("training.epochs: !!str 3")]).training.epochs == 3
    refusal(["-C", file("training.epochs: !!python/object/apply:os.getcwd []")])


def test_booleans_as_python_has_them():
    for yes in (True, 1, "1", "TRUE", "Yes", "on"):
        assert Bool().check(yes) is True
    for no in (False, 0, "0", "False", "NO", "off"):
        assert Bool().check(no) is False
    for other in (2, 1.0, None, [], "", "t"):
        with pytest.raises(ValueError):
            Bool().check(other)
    assert Bool().help() == "1/0 or true/false"


def test_numbers_as_python_has_them():
    assert INT.check(16.0) == 16
    assert STR.check(3) == "3"
    assert INT.check(10**30) == INT.check(str(10**30)) == 10**30
    wrong = [(INT, 1.5), (INT, True), (FLOAT, True), (STR, False), (STR, None), (INT, float("inf"))]
    for checker, value in wrong:
        with pytest.raises((ValueError, TypeError)):
            checker.check(value)


def test_bounds_and_choices():
    found = refusal(["--data.workers=0"])
    assert found == "data.workers=0 is not an int between 1 and 1000000; give an int between 1 and 1000000"
    assert refusal(["--data.workers=1.5"]).endswith("give an int between 1 and 1000000")
    assert "is not a float between -1 and 1; " in refusal(["--lr.end=1.01"])
    assert refusal(["--training.optimizer=adam"]).endswith("is not one of sgd, adamw; give one of sgd, adamw")
    assert refusal(["--training.eval_every=x"]).endswith("give an int or never")
    assert parse(example(), ["--lr.end=1", "--data.workers=1", "--training.eval_every=never"]).data.workers == 1
    assert parse(example(), ["--training.eval_every=3"]).training.eval_every == 3


def test_choices_named_on_and_off(file):
    assert parse(example(), ["-C", file("training: {cache: off}")]).training.cache == "off"
    config = Config()
    Section("a", "", config_descriptor=config).params(size=Param(one_of(224, 256)))
    assert parse(config, ["--a.size=256"]).a.size == parse(config, ["-C", file("a.size: 256")]).a.size == 256


def test_fastargs_own_checkers_are_made_strict():
    config = Config()
    Section("a", "", config_descriptor=config).params(
        i=Param(int), f=Param(float), s=Param(str), b=Param(bool), low=Param(And(int, InRange(min=1))),
        either=Param(Or(int, OneOf(["auto"]))), least=Param(between(int, 2, 9)),
    )  # fmt: skip
    for argv in ["i=1.5", "f=nan", "b=maybe", "low=1.5", "low=0", "either=1.5", "least=1"]:
        refusal([f"--a.{argv}"], config)
    assert parse(config, ["--a.b=False"]).a.b is False
    assert parse(config, ["--a.either=auto"]).a.either == "auto"


def test_a_wrong_default_is_the_script_s_mistake():
    config = Config()
    Section("a", "", config_descriptor=config).params(b=Param(INT, default="many"))
    with pytest.raises(ValueError, match="default of a.b"):
        parse(config, [])


def test_line_breaks_stay_out_of_errors(file):
    assert refusal(["--training.epochs=1\n2"]) == "training.epochs=1\\n2 is not an int; give an int"
    for argv in (["a\nb"], ["--a\rb=1"], ["-C", "a\nb.yaml"], ["-C", "\u2028.json"], ["-C", "a\udcff.yaml"]):
        refusal(argv)
    refusal(["-C", file("training.epochs: |\n  a\n  b\n")])


# --- Files that cannot be used


@pytest.mark.parametrize(
    "name, content, why",
    [
        ("none.yaml", None, "No such file or directory"),
        ("none.json", None, "No such file or directory"),
        ("none", None, "not a .yaml, .yml or .json file"),
        ("a.txt", "data: {}", "not a .yaml, .yml or .json file"),
        ("a.yaml", "data: [1, 2\n", "not valid yaml (line 2: "),
        ("a.yml", "data: {workers: 1}\n x", "not valid yml (line 2: "),
        ("a.yaml", "a: 1\n---\nb: 2\n", "not valid yaml (line 2: "),
        ("a.yaml", "data: \x00", "not valid yaml ("),
        ("a.yaml", b"\xff\xfe\x00data", "not valid yaml ("),
        ("a.yaml", "[" * 5000, "not valid yaml ("),
        ("a.json", "{'data': 3}", "not valid json ("),
        ("a.json", "", "not valid json ("),
        ("a.yaml", "- 1\n- 2\n", "no sections at its top level"),
        ("a.yaml", "3", "no sections at its top level"),
        ("a.yaml", "just text", "no sections at its top level"),
        ("a.json", "[]", "no sections at its top level"),
        ("a.yaml", "1e400", "no sections at its top level"),
        ("a.yaml", "data:\n\tworkers: 1\n", "not valid yaml (line 2: "),
        ("a.yaml", "? [a]\n: 1\n", "not valid yaml ("),
        ("", None, "not a .yaml, .yml or .json file"),
        (".yaml", None, "not a .yaml, .yml or .json file"),
        (f"{LONG}.yaml", None, ""),
        ("\0.yaml", None, ""),
        ("\udcff.yaml", None, ""),
        ("a\nb.yaml", None, "No such file or directory"),
        ("/proc/self/mem.yaml", None, ""),
    ],
)
def test_unusable_files(tmp_path, monkeypatch, name, content, why):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    found = refusal([f"--config-file={name}"])
    assert found.startswith("config file '")
    assert why in found


@pytest.mark.parametrize("name", ["configs", "configs.yaml", "beton.yaml", "photo.yaml", "below"])
def test_other_things_as_config_files(betons, photo_folder, tmp_path, name):
    for folder in ("configs", "configs.yaml"):
        (tmp_path / folder).mkdir()
    (tmp_path / "beton.yaml").symlink_to(betons["val"])
    (tmp_path / "photo.yaml").symlink_to(next(photo_folder.rglob("*.jpg")))
    path = tmp_path / name if name != "below" else tmp_path / "beton.yaml/below.yaml"
    assert path.name in refusal(["-C", str(path)])


@pytest.mark.parametrize("content", ["data: 3", "data: [workers]", "data: text", "data: ''", "data: 0", "data: []"])
def test_section_that_is_no_mapping(file, content):
    assert refusal(["-C", file(content)]).startswith("'data' in a.yaml is a section, not a value; ")


def test_byte_order_mark_and_crlf(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfdata:\r\n  workers: 3\r\n")
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"data.workers":\r\n3}')
    for name in ("a.yaml", "a.json"):
        assert parse(example(), ["-C", str(tmp_path / name)]).data.workers == 3


# --- Help


def test_help(capsys):
    for argv in (["--help"], ["-h"], ["--data.workers=x", "--help"], ["-C", "none.yaml", "--help"]):
        with pytest.raises(SystemExit) as caught:
            parse(example(required=True), argv)
        assert caught.value.code == 0
        out = capsys.readouterr().out
        for text in (
            "data: the dataset",
            "lr: the learning rate",
            "at the top of the ramp",
            "an int between 1 and 1000000",
        ):
            assert text in out
        rows = {r.split("|")[1].strip(): [c.strip() for c in r.split("|")[2:-1]] for r in out.splitlines() if "|" in r}
        assert rows["data.train_dataset"] == ["required", "a string", "the .beton to train on"]
        assert rows["data.workers"] == ["4", "an int between 1 and 1000000", "decoding threads"]
        assert rows["training.note"] == ["", "a string", "kept in the log"]


# --- As a script


SCRIPT = """
import sys, time
from fastargs import Config, Param, Section
from beton.errors import UserError
from runtime.config import INT, STR, between, parse, run

def main(argv):
    config = Config()
    Section('a', 'the section', config_descriptor=config).params(
        n=Param(between(INT, 1, 9), 'how many', required=True), do=Param(STR, 'what', default='print'))
    settings = parse(config, argv)
    if settings.a.do == 'wait':
        print('waiting', flush=True)
        time.sleep(600)
    if settings.a.do == 'break':
        raise ValueError('a bug')
    if settings.a.do == 'lines':
        raise UserError('one\\ntwo', 'mend it')
    if settings.a.do == 'exit':
        sys.exit(7)
    if settings.a.do == 'modules':
        print(sorted({'torch', 'numpy', 'ffcv', 'numba', 'cv2'} & set(sys.modules)))
    print(settings.a.n)

run(main)
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    path = tmp_path_factory.mktemp("script") / "script.py"
    path.write_text(SCRIPT)
    return [sys.executable, str(path)]


def ran(command, *argv):
    environment = {**ENVIRONMENT, "a.n": "5"}
    return subprocess.run([*command, *argv], env=environment, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize(
    "argv, status, out, err",
    [
        (["--a.n=3"], 0, "3\n", ""),
        (["--a.n=x"], 2, "", "error: a.n=x is not an int between 1 and 9; give an int between 1 and 9\n"),
        (["--a.m=3"], 2, "", "error: unknown option '--a.m'; did you mean '--a.n'?\n"),
        ([], 2, "", "error: missing a.n; give --section.name=value or set it in a --config-file\n"),
        (["--a.n=1", "--a.do=lines"], 2, "", "error: one two; mend it\n"),
        (["--a.n=1", "--a.do=exit"], 7, "", ""),
        (["--a.n=1", "--a.do=modules"], 0, "[]\n1\n", ""),
    ],
)
def test_exit_status_and_one_line(command, argv, status, out, err):
    done = ran(command, *argv)
    assert (done.returncode, done.stdout, done.stderr) == (status, out, err)


def test_help_of_a_script(command):
    done = ran(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: script.py ")


def test_a_bug_stays_a_traceback(command):
    done = ran(command, "--a.n=1", "--a.do=break")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("ValueError: a bug\n")


def test_interrupted(command):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    heeds = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}  # a shell's background jobs ignore it
    it = subprocess.Popen([*command, "--a.n=1", "--a.do=wait"], env=ENVIRONMENT, **pipes, **heeds)
    try:
        assert it.stdout.readline() == "waiting\n"
        time.sleep(0.1)
        it.send_signal(signal.SIGINT)
        _, err = it.communicate(timeout=100)
    finally:
        it.kill()
    assert (it.returncode, err) == (130, "interrupted\n")


# --- Any values, any unknown key

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20).filter(
    lambda text: text != "null"
)
anything = st.fixed_dictionaries(
    {},
    optional={
        "data.train_dataset": texts,
        "data.workers": st.integers(1, 10**6),
        "data.in_memory": st.booleans(),
        "lr.peak": st.floats(allow_nan=False, allow_infinity=False),
        "lr.end": st.floats(-1, 1),
        "training.epochs": st.integers(),
        "training.note": texts,
        "training.optimizer": st.sampled_from(["sgd", "adamw"]),
        "training.cache": st.sampled_from(["on", "off"]),
    },
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch") / "any.yaml"


@given(values=anything, data=st.data())
def test_any_values_come_back_as_given(scratch, values, data):
    in_file = {key for key in values if data.draw(st.booleans(), label=key)}
    content = {}
    for key in in_file:
        section, name = key.split(".")
        if data.draw(st.booleans(), label="nested"):
            content.setdefault(section, {})[name] = values[key]
        else:
            content[key] = values[key]
    # Escaped, because PyYAML's own dump does not survive its own load with allow_unicode ('\x85').
    scratch.write_text(yaml.safe_dump(content), encoding="utf-8")
    argv = [f"--{key}={value}" for key, value in values.items() if key not in in_file]
    settings = parse(example(), ["--config-file", str(scratch), *argv])
    given_back = {key: value for key, value in settings.flat().items() if settings.origin[key] != "default"}
    assert given_back == values
    assert {key for key, origin in settings.origin.items() if origin == str(scratch)} == in_file


KNOWN = set(parse(example(), []).flat())


@given(
    section=st.sampled_from(["", "data.", "lr.", "dta."]),
    name=st.text(st.characters(codec="utf-8"), max_size=12),
)
def test_any_unknown_key_is_refused(scratch, section, name):
    key = section + name
    if key in KNOWN | {"data", "lr", "training"}:
        return
    scratch.write_text(yaml.safe_dump({key: 1}), encoding="utf-8")
    assert refusal(["-C", str(scratch)]).startswith("unknown key '")
    if "=" not in key and key not in ("help", "config-file"):
        assert refusal([f"--{key}=1"]).startswith("unknown option '--")
