"""python -m beton check|info|preview|compare, as a user starts it; what it and `import beton` need not load."""

import sys

import pytest
from PIL import Image

from beton.format.card import card_path
from tests.support.betons import copied, damage, flip_bits, write_good
from tests.support.photos import make_folder
from tests.support.scripts import assert_user_error, run_code, run_script

HEAVY = ["torch", "numba", "cv2"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A photo folder and a beton of it."""
    folder = tmp_path_factory.mktemp("made")
    make_folder(folder / "photos", [(20 + i, 30) for i in range(6)])
    return write_good(folder / "a.beton", folder / "photos", write_mode="raw")


def beton(*argv, **more):
    return run_script("-m", "beton", *argv, **more)


def test_each_command_runs_as_a_module(made, tmp_path):
    for command, rest, words in (
        ("info", [], "FFCV format 2, 6 samples"),
        ("check", [], "all 6 samples are good"),
        ("compare", [made.parent / "photos"], "no difference (6 photos"),
        ("preview", [tmp_path / "sheet.png"], "6 samples of"),
    ):
        done = beton(command, made, *rest)
        assert (done.returncode, done.stderr) == (0, ""), command
        assert words in done.stdout
    assert Image.open(tmp_path / "sheet.png").size == (6 * 128, 146)


def test_threads_that_decode_end_without_a_word(made, tmp_path):
    path = write_good(tmp_path / "b.beton", made.parent / "photos", write_mode="proportion", rest="blocks")
    card_path(path).unlink()
    done = beton("check", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "every sample decoded" in done.stdout


def test_what_check_and_compare_find_is_status_1(made, tmp_path):
    path = damage(copied(made, tmp_path / "b.beton"), [4], flip_bits)
    for command, rest, words in (
        ("check", [], "damaged: sample 4 (class_1, raw, 30 x 24, class_1/004.png): its checksum differs"),
        ("compare", [made.parent / "photos"], "1 differences"),
    ):
        done = beton(command, path, *rest)
        assert (done.returncode, done.stderr) == (1, ""), command
        assert words in done.stdout
    # Advice names the arguments as Python has them, without the marks that the scripts look for
    assert "on_error='skip'" in beton("check", path).stdout.replace("`", "")


def test_errors_are_one_line_and_status_2(made, tmp_path):
    assert_user_error(beton("info", tmp_path / "none.beton"), "there is no file")
    assert_user_error(beton("inof", made), "unknown command 'inof'", "check, info, preview, compare")
    assert_user_error(beton("preview", made, "--out=a.png"), "preview has no option '--out=a.png'", "--help")
    assert_user_error(beton("compare", made), "takes FILE FOLDER, not 1 words", "write python -m beton compare")
    done = beton()
    assert (done.returncode, done.stdout.split(" FILE")[0]) == (2, "usage: python -m beton check")
    done = beton("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "python -m beton preview FILE [OUT.png]" in done.stdout


def test_import_beton_loads_neither_torch_nor_numba_nor_cv2():
    code = f"import beton; dir(beton); beton.UserError; print([m for m in {HEAVY} if m in sys.modules])"
    assert run_code(code) == "[]\n"


@pytest.mark.parametrize("command", ["info", "--help"])
def test_info_loads_neither_torch_nor_numba_nor_cv2(made, command):
    code = (
        "import atexit, runpy\n"
        f"atexit.register(lambda: print('loaded:', [m for m in {HEAVY} if m in sys.modules]))\n"
        "sys.argv = ['beton', *sys.argv[1:]]\n"
        "runpy.run_module('beton', run_name='__main__', alter_sys=True)"
    )
    words = [command, made] if command == "info" else [command]
    assert run_code(code, *words).endswith("loaded: []\n")
    assert sys.modules.keys() >= set(HEAVY)  # of this process: the names are right
