"""What a loader says to whom uses it as it cannot be used: no hang, no silence."""

import multiprocessing

import pytest

import beton
from beton.errors import UserError
from pipelines import open_pipeline
from tests.support.betons import image_records, write_beton
from tests.support.loaders import task
from tests.support.photos import draw_photos
from tests.support.scripts import run_code

_GIVEN = {"image": "center(8)", "workers": 2}


@pytest.mark.parametrize(
    "changes", [{"batch_size": 0}, {"workers": 0}, {"repeats": 0}, {"rank": 2}, {"on_error": "ignore"}], ids=str
)
def test_a_wrong_number_is_an_error_that_names_it(numbered, changes):
    given = {"batch_size": 4, **_GIVEN, **changes}
    with pytest.raises(UserError, match=f"`{next(iter(changes))}`"):
        beton.Loader(numbered["beton"], **given)


def test_a_closed_loader_says_so(numbered):
    loader = beton.Loader(numbered["beton"], 4, **_GIVEN)
    loader.close()
    with pytest.raises(RuntimeError, match=r"all.beton is closed"):
        next(iter(loader))


_FORK = """
import os, sys, beton
if __name__ == "__main__":
    batches = iter(beton.Loader(sys.argv[1], 4, image="center(8)", workers=2))
    next(batches)
    pid = os.fork()
    if pid == 0:
        try:
            next(batches)
        except RuntimeError as error:
            print(error, flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
    print(len(list(batches)), flush=True)
"""


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork")
def test_a_forked_child_that_continues_its_parents_epoch_is_an_error(numbered):
    said = run_code(_FORK, numbered["beton"], timeout=60)  # it hung
    assert "an epoch cannot be continued in a forked process" in said
    assert said.splitlines()[-1] == "11"  # and the parent goes on


def test_a_beton_for_the_standard_loader_and_a_folder_for_ours_are_told(numbered):
    with pytest.raises(UserError, match=r"reads photo folders, and .*all.beton is a file; .*, or `pipeline`='beton'"):
        open_pipeline("torch", task(numbered["beton"]))
    with pytest.raises(UserError, match="reads .beton files, and .* is a folder; .* `pipeline`='torch'"):
        open_pipeline("beton", task(numbered["folder"]))


def test_fields_that_are_left_out_are_named(numbered):
    with beton.Loader(numbered["beton"], 4, columns=("label",)) as loader:
        assert "without the fields image" in loader.description


def test_a_negative_label_is_found_by_check_as_by_the_loader(tmp_path, capsys):
    from beton.inspecting.commands import main
    from tests.support.betons import tables

    path = write_beton(tmp_path / "a.beton", draw_photos(6, 20, 30))
    (tmp_path / "a.beton.json").unlink()
    metadata, *_ = tables(path)
    metadata["f1"][2] = -1
    metadata.flush()
    assert len(image_records(path)) == 6
    with pytest.raises(UserError, match="sample 2 of .* has the label -1"):
        beton.Loader(path, 2, **_GIVEN)
    assert main(["check", str(path)]) == 1
    assert "a.beton has the label -1" in capsys.readouterr().out
