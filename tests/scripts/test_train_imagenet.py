"""Training through the command line: what a run leaves behind, ranks, evaluation; interruption: test_resume.py."""

import functools
import json
import shutil

import pytest
import timm
import torch
import torchvision

from beton.sources.imagefolder import open_source
from tests.support import hooks
from tests.support.betons import write_source
from tests.support.scripts import forked, free_port, options, run_script
from tests.support.training import assert_whole_photos, digest, log_of

SMALL = {
    "data.num_workers": 2,
    "data.in_memory": 1,
    "resolution.min_res": 32,
    "resolution.max_res": 64,
    "resolution.start_ramp": 0,
    "resolution.end_ramp": 2,
    "training.batch_size": 24,
    "training.epochs": 3,
    "training.use_blurpool": 1,
    "lr.lr": 0.05,
    "lr.lr_peak_epoch": 1,
    "validation.batch_size": 16,
    "validation.resolution": 48,
}
TINY = {"model__arch": "timm:test_resnet"}  # where the model is not the point


def arguments(betons, folder, **changes):
    """Command line of a small run; `changes` have __ for the dot."""
    data = {"data.train_dataset": betons["train"], "data.val_dataset": betons["val"]}
    return ["train_imagenet.py", *options(SMALL | data, logging__folder=folder, logging__name="run", **changes)]


def train(betons, folder, runner=forked, **changes):
    """Run the trainer; returns the run's folder."""
    done = runner(*arguments(betons, folder, **changes))
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def finished(betons, tmp_path_factory):
    """A finished run of three epochs, started as a user starts it."""
    return train(betons, tmp_path_factory.mktemp("finished"), run_script)


def test_run_folder_holds_parameters_log_and_weights(finished):
    noted = json.loads((finished / "params.json").read_text())
    assert noted["params"]["training.epochs"] == 3
    assert noted["origin"]["training.epochs"] == "command line"
    assert noted["origin"]["training.momentum"] == "default"
    assert noted["versions"]["torch"] == torch.__version__.split("+")[0]
    assert noted["machine"]["cores"] >= 1
    lines = log_of(finished)
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert [line["res"] for line in lines] == [32, 64, 64]
    for line in lines:
        assert line["train_loss"] > 0
        assert 0 <= line["wait_time"] <= line["train_time"]
        assert line["images"] == 120
        assert line["val_images"] == 41
        assert line["loader"] == "beton"
        assert_whole_photos(line, "top_1")
    assert not list(finished.glob(".*")), "temporary files are left"


def test_final_weights_load_into_the_plain_model(finished):
    weights = torch.load(finished / "final_weights.pt", weights_only=True)
    torchvision.models.resnet18(num_classes=10).load_state_dict(weights)


def test_same_seed_trains_the_same_weights_and_another_seed_does_not(betons, tmp_path):
    one, same, other = (
        digest(train(betons, tmp_path / name, **TINY, **changes))
        for name, changes in (("one", {}), ("same", {"data__num_workers": 1}), ("other", {"training__seed": 1}))
    )
    assert one == same != other


def test_eval_only_evaluates_the_given_weights(finished, betons, tmp_path):
    for given in (
        {"model__weights": finished / "final_weights.pt"},
        {"model__weights": finished / "checkpoint.pt"},
        {"training__resume": finished},
    ):
        done = forked(*arguments(betons, tmp_path, training__eval_only=1, **given))
        assert done.returncode == 0, done.stderr
        last = log_of(finished)[-1]
        assert f"top_1={last['top_1']:.6g}" in done.stdout
        assert f"val_loss={last['val_loss']:.6g}" in done.stdout
        assert not tmp_path.joinpath("run").exists()


def evaluate(val, *given):
    """`train_imagenet.py` with training.eval_only and nothing that only training needs."""
    small = {"data.val_dataset": val, "validation.resolution": 48, "validation.batch_size": 16}
    small |= {"training.eval_only": 1, "training.use_blurpool": 1, "data.num_workers": 1, "data.in_memory": 1}
    return forked("train_imagenet.py", *options(small), *given)


def test_eval_only_needs_neither_training_data_nor_a_folder_for_runs(finished, betons):
    for given in (f"--model.weights={finished}/final_weights.pt", f"--training.resume={finished}"):
        done = evaluate(betons["val"], given)
        assert done.returncode == 0, done.stderr
        assert f"top_1={log_of(finished)[-1]['top_1']:.6g}" in done.stdout
    done = evaluate(betons["val"], "--training.eval_only=0")
    assert done.returncode == 2
    assert "missing data.train_dataset, logging.folder" in done.stderr


@pytest.mark.parametrize("kind", ["weights", "checkpoint", "run folder"])
def test_eval_only_refuses_photos_of_other_classes(finished, betons, photo_folder, tmp_path, kind):
    given = {
        "weights": f"--model.weights={finished}/final_weights.pt",
        "checkpoint": f"--model.weights={finished}/checkpoint.pt",
        "run folder": f"--training.resume={finished}",
    }[kind]
    classes = json.loads((finished / "final_weights.classes.json").read_text())
    assert classes == sorted(path.name for path in (photo_folder / "train").iterdir())
    # As many classes, one of which has another name and so another number
    shutil.copytree(photo_folder / "val", tmp_path / "val")
    (tmp_path / "val" / classes[0]).rename(tmp_path / "val" / "zebra")
    write_source(open_source(str(tmp_path / "val"), "val"), tmp_path / "val.beton", "jpg", max_resolution=128)
    done = evaluate(tmp_path / "val.beton", given)
    assert done.returncode == 2
    assert f"class 0 is '{classes[0]}' in the weights, and '{classes[1]}' in {tmp_path}/val.beton" in done.stderr
    assert "top_1" not in done.stdout


def test_eval_only_says_that_weights_from_elsewhere_name_no_classes(finished, betons, tmp_path):
    shutil.copy(finished / "final_weights.pt", tmp_path)
    done = evaluate(betons["val"], f"--model.weights={tmp_path}/final_weights.pt")
    assert done.returncode == 0, done.stderr
    assert f"=> the weights name no classes: those of {betons['val']} are taken, in their order" in done.stdout


def test_standard_loader_trains_from_the_photo_folder(photo_folder, tmp_path):
    folders = {split: photo_folder / split for split in ("train", "val")}
    lines = log_of(train(folders, tmp_path, data__loader="torch", training__epochs=1, **TINY))
    assert lines[0]["loader"] == "torch"
    assert lines[0]["val_images"] == 41


@pytest.mark.parametrize("how", ["forked", pytest.param("torchrun", marks=pytest.mark.slow)])
def test_two_ranks_share_the_work_and_count_every_photo_once(betons, tmp_path, how):
    changes = TINY | {"training__epochs": 1, "training__batch_size": 12, "training__precision": "none"}
    if how == "forked":
        changes |= {"training__distributed": 1, "dist__world_size": 2, "dist__port": free_port()}
        quick = functools.partial(forked, hook=functools.partial(hooks.forked_ranks, ""))
        run = train(betons, tmp_path, quick, **changes)
    else:
        command = ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
        run = train(betons, tmp_path, lambda *argv: run_script(*command, *argv), **changes)
    for line in log_of(run):
        assert line["images"] == 60  # of each rank
        assert line["val_images"] == 41
        assert_whole_photos(line, "top_1")
    weights = torch.load(run / "final_weights.pt", weights_only=True)
    timm.create_model("test_resnet", num_classes=10).load_state_dict(weights)


def test_log_level_0_evaluates_only_at_the_end(betons, tmp_path):
    lines = log_of(train(betons, tmp_path, logging__log_level=0, training__epochs=2, **TINY))
    assert "top_1" not in lines[0]
    assert "top_1" in lines[1]


def test_the_recipe_for_cifar_trains(betons, tmp_path):
    given = {"training.batch_size": 24, "training.epochs": 1, "lr.lr_peak_epoch": 0.5, "data.num_workers": 1}
    given |= {"data.train_dataset": betons["train"], "data.val_dataset": betons["val"]}
    recipe = "--config-file=rn_configs/cifar10_resnet9.yaml"
    done = forked("train_imagenet.py", recipe, *options(given, logging__folder=tmp_path, logging__name="run"))
    assert done.returncode == 0, done.stderr
    assert "timm:resnet9_cifar, 2.3 M parameters, 10 classes" in done.stdout
    assert log_of(tmp_path / "run")[0]["res"] == 32


@pytest.mark.parametrize("precision", ["fp16", "bf16", "none"])
def test_every_precision_trains_on_a_cpu(betons, tmp_path, precision):
    lines = log_of(train(betons, tmp_path, training__precision=precision, training__epochs=1, **TINY))
    assert lines[0]["precision"] == precision
    assert 1 < lines[0]["train_loss"] < 5


def test_timm_model_with_its_own_norms_trains(betons, tmp_path):
    run = train(betons, tmp_path, model__arch="timm:resnet10t", training__epochs=1, lr__lr_schedule_type="step")
    weights = torch.load(run / "final_weights.pt", weights_only=True)
    timm.create_model("resnet10t", num_classes=10).load_state_dict(weights)


@pytest.mark.slow
def test_compiled_model_trains_to_the_same_weights_names(betons, tmp_path):
    run = train(betons, tmp_path, training__compile=1, training__epochs=1)
    torchvision.models.resnet18(num_classes=10).load_state_dict(torch.load(run / "final_weights.pt", weights_only=True))
