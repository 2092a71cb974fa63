"""Multi-label targets, and what a model gets wrong: the files of a run folder, from the command line."""

import csv
import functools
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import beton
from runtime.training import metrics
from runtime.training.losses import MultiLabelLoss
from tests.support import hooks
from tests.support.scripts import assert_user_error, forked, free_port, here, options
from tests.support.training import VIT, log_of

CLASSES = ["dark", "red", "wide"]


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """{"train", "val": beton} of photos that are dark, red and wide or not, written from tables: for training with a
    column for each class, for validation with names."""
    folder, rng = tmp_path_factory.mktemp("tables"), np.random.default_rng(0)
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    for split, count in (("train", 64), ("val", 21)):
        lines = [["photo", *CLASSES] if split == "train" else ["photo", "classes"]]
        for i in range(count):
            dark, red, wide = labels = rng.integers(0, 2, 3)
            pixels = rng.integers(0, 60, (40, 70 if wide else 40, 3), np.uint8) + np.uint8(40 if dark else 160)
            pixels[..., 1:] //= 1 + 2 * red.astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{split}{i}.png")
            names = "|".join(name for name, there in zip(CLASSES, labels, strict=True) if there)
            lines.append([f"{split}{i}.png", *(labels if split == "train" else [names])])
        (folder / f"{split}.csv").write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
        argv = {"dataset": "table", "data_dir": folder, "split": split, "write_path": folder / f"{split}.beton"}
        done = here("write_dataset.py", *(f"--cfg.{name}={value}" for name, value in argv.items()))
        assert done.returncode == 0, done.stderr
    return {split: folder / f"{split}.beton" for split in ("train", "val")}


@pytest.fixture
def settings(resnet, tables, tmp_path):
    """A run on them."""
    changes = {"logging.folder": tmp_path, "data.train_dataset": tables["train"], "data.val_dataset": tables["val"]}
    changes |= {"training.epochs": 4, "lr.lr": 0.5, "resolution.max_res": 32, "training.label_smoothing": 0}
    return resnet | changes | {"training.resume": "null", "training.checkpoint_minutes": "null"}


def test_a_table_becomes_vectors_of_labels(tables):
    with beton.open(tables["val"]) as file:
        assert file.classes == CLASSES and file.fields["label"] == "array"
        assert file.names[3] == "val3.png"
        for sample in file:
            dark, red, wide = sample.label
            assert wide == (sample.image.shape[1] == 70)
            assert dark == (sample.image[..., 0].mean() < 130)


def test_a_multi_label_run_from_tables_to_its_files(settings, tables, tmp_path):
    done = here("train_imagenet.py", *options(settings | {"logging.worst": 5, "logging.predictions": 1}))
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    lines = log_of(run)
    assert "top_1" not in lines[-1] and lines[-1]["train_loss"] < lines[0]["train_loss"]
    assert (run / "best_weights.pt").exists() and any("mean_ap" in line.get("best", ()) for line in lines)
    saved = np.load(run / "predictions.npz")
    with beton.open(tables["val"]) as file:
        labels = np.stack([sample.label for sample in file])
    assert (saved["labels"] == labels).all() and saved["samples"].tolist() == list(range(21))
    assert saved["names"].tolist() == [f"val{i}.png" for i in range(21)] and saved["classes"].tolist() == CLASSES
    classes = rows_of(run / "classes.csv")
    precisions = [float(row["average_precision"]) for row in classes]
    for i, row in enumerate(classes):
        assert precisions[i] == pytest.approx(average_precision(saved["outputs"][:, i], labels[:, i]), abs=1e-6)
        assert int(row["right"]) == ((saved["outputs"][:, i] >= 0) & (labels[:, i] == 1)).sum()
    assert lines[-1]["mean_ap"] == pytest.approx(np.mean(precisions))
    distance = np.abs(labels - torch.from_numpy(saved["outputs"]).double().sigmoid().numpy()).max(1)
    for entry, sample in zip(
        json.loads((run / "worst.json").read_text()), np.argsort(-distance, kind="stable"), strict=False
    ):
        assert entry["sample"] == sample and entry["name"] == f"val{sample}.png"
        assert {entry["label"].removeprefix("no "), entry["predicted"].removeprefix("no ")} < {*CLASSES}
    assert not (run / "confusion.csv").exists()


def average_precision(scores, labels):
    """Precision at each threshold, times the gain in recall there."""
    total, recall = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        found = labels[scores >= threshold]
        total += found.mean() * (found.sum() / labels.sum() - recall)
        recall = found.sum() / labels.sum()
    return total


def test_average_precision_is_nan_for_a_class_that_no_photo_has():
    outputs = torch.tensor([[30.0, 2], [40, 1], [20, 0]])
    found = metrics.average_precisions(outputs, torch.tensor([[1.0, 0], [0, 0], [1, 0]]))
    assert found[0] == pytest.approx((1 / 2 + 2 / 3) / 2) and np.isnan(found[1])


def test_the_loss_is_the_mean_of_binary_cross_entropies():
    outputs, targets = torch.randn(4, 3), torch.tensor([[0.0, 1, 0.3]] * 4)
    expected = F.binary_cross_entropy(outputs.sigmoid(), targets)
    torch.testing.assert_close(MultiLabelLoss()(outputs, targets), expected)
    # Label smoothing as cross entropy of two outcomes has it
    two = torch.stack([outputs[:, 1], torch.zeros(4)], 1)
    smoothed = F.cross_entropy(two, torch.zeros(4, dtype=torch.long), label_smoothing=0.2)
    torch.testing.assert_close(MultiLabelLoss(0.2)(outputs[:, 1:2], targets[:, 1:2]), smoothed)


def test_two_ranks_write_what_one_writes(settings, tmp_path):
    """The files of an evaluation of the same weights."""
    wanted = settings | {"logging.worst": 9, "logging.predictions": 1}
    assert here("train_imagenet.py", *options(wanted | {"training.epochs": 1})).returncode == 0
    wanted |= {"training.eval_only": 1, "training.use_blurpool": 1, "model.weights": tmp_path / "run/final_weights.pt"}
    wanted |= {"validation.batch_size": 4}
    one = here("train_imagenet.py", *options(wanted | {"logging.name": "one"}))
    ranks = {"training.distributed": 1, "dist.world_size": 2, "dist.port": free_port(), "training.device": "cpu"}
    wanted |= ranks | {"logging.name": "two"}
    two = forked("train_imagenet.py", *options(wanted), hook=functools.partial(hooks.forked_ranks, ""))
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    saved = [np.load(tmp_path / name / "predictions.npz") for name in ("one", "two")]
    assert saved[0]["samples"].tolist() == saved[1]["samples"].tolist() == list(range(21))
    np.testing.assert_allclose(saved[0]["outputs"], saved[1]["outputs"], rtol=1e-4, atol=1e-3)
    stats = [json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("one", "two")]
    assert stats[0]["mean_ap"] == pytest.approx(stats[1]["mean_ap"], abs=1e-3)


def test_classes_that_are_wrong_and_how(resnet, betons, tmp_path):
    changes = {"logging.folder": tmp_path, "logging.worst": 7, "logging.predictions": 1, "training.epochs": 1}
    changes |= {"training.resume": "null", "training.checkpoint_minutes": "null"}
    done = here("train_imagenet.py", *options(resnet | changes))
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    saved = np.load(run / "predictions.npz")
    chosen, labels = saved["outputs"].argmax(1), saved["labels"]
    with beton.open(betons["val"]) as file:
        assert labels.tolist() == file.labels.tolist()
        names, classes = file.names, file.classes
    assert log_of(run)[-1]["top_1"] == pytest.approx((chosen == labels).mean())
    surest = torch.from_numpy(saved["outputs"]).double().softmax(1).amax(1).numpy()
    wrong = [i for i in np.argsort(-surest, kind="stable") if chosen[i] != labels[i]][:7]
    worst = json.loads((run / "worst.json").read_text())
    assert [entry["sample"] for entry in worst] == wrong
    assert [entry["name"] for entry in worst] == [names[i] for i in wrong]
    assert [(e["label"], e["predicted"]) for e in worst] == [(classes[labels[i]], classes[chosen[i]]) for i in wrong]
    matrix = np.array([[int(row[name]) for name in classes] for row in rows_of(run / "confusion.csv")])
    expected = np.zeros_like(matrix)
    np.add.at(expected, (labels, chosen), 1)
    assert (matrix == expected).all()
    for row, counts in zip(rows_of(run / "classes.csv"), expected, strict=True):
        assert int(row["photos"]) == counts.sum()
    sizes = {name: Image.open(run / f"{name}.png").size for name in ("worst", "classes", "confusion")}
    assert sizes["worst"] == (7 * 160, 206) and min(sizes["classes"] + sizes["confusion"]) > 200


def test_a_photo_that_was_left_out_shifts_no_other(resnet, betons, photo_folder, tmp_path):
    """With data.on_error=skip the numbers are those of the photos that were evaluated, whatever the loader."""
    val = tmp_path / "val.beton"
    val.write_bytes(betons["val"].read_bytes())
    with beton.open(val) as file:
        start, labels = int(file.columns["image"].addresses[5]), file.labels
    np.memmap(val, np.uint8, "r+", start, 64)[:] = 0
    wanted = resnet | {"data.val_dataset": val, "logging.folder": tmp_path, "logging.predictions": 1}
    wanted |= {"data.on_error": "skip", "training.eval_only": 1, "training.resume": "null", "logging.name": "skipped"}
    done = here("train_imagenet.py", *options(wanted))
    assert done.returncode == 0, done.stderr
    saved = np.load(tmp_path / "skipped/predictions.npz")
    assert saved["samples"].tolist() == [i for i in range(41) if i != 5]
    assert (saved["labels"] == labels[saved["samples"]]).all()
    torchs = {"data.loader": "torch", "data.val_dataset": photo_folder / "val"}
    assert_user_error(here("train_imagenet.py", *options(wanted | torchs)), "data.on_error=skip")
    done = here("train_imagenet.py", *options(wanted | torchs | {"data.on_error": "raise", "logging.name": "torch"}))
    assert done.returncode == 0, done.stderr
    saved = np.load(tmp_path / "torch/predictions.npz")
    assert all(
        name.split("/")[0] == saved["classes"][label]
        for name, label in zip(saved["names"], saved["labels"], strict=True)
    )


def test_a_transformer_mixes_vectors_of_labels(tables, tmp_path):
    changes = {"data.train_dataset": tables["train"], "data.val_dataset": tables["val"], "logging.folder": tmp_path}
    changes |= {
        "training.batch_size": 16,
        "training.repeats": 1,
        "training.resume": "null",
        "training.checkpoint_minutes": "null",
    }
    settings = VIT | changes | {"logging.worst": 3, "training.bce_target_threshold": "null"}
    done = here("train_transformers.py", *options(settings))
    assert done.returncode == 0, done.stderr
    line = log_of(tmp_path / "run")[-1]
    assert 0 < line["mean_ap"] <= 1 and 0 < line["ema_mean_ap"] <= 1
    for what, words in (({"training.loss": "ce"}, "bce"), ({"mesa.weight": 1}, "MESA")):
        assert_user_error(here("train_transformers.py", *options(settings | {"logging.name": "no"} | what)), words)


def test_mixed_labels_are_those_of_the_mixed_photos():
    """Photos whose only pixel value is their label: so they stay."""
    from types import SimpleNamespace

    from runtime.training.losses import Objective

    training = SimpleNamespace(
        loss="bce", mixup=0.8, cutmix=0.0, mix_probability=1, mix_switch=0.5, label_smoothing=0.0, seed=3,
        bce_target_threshold=None,
    )  # fmt: skip
    off = {"distillation": SimpleNamespace(mode="none"), "mesa": SimpleNamespace(weight=0)}
    objective = Objective(SimpleNamespace(training=training, **off), 2, None, None, None, multi_label=True)
    labels = torch.rand(6, 2)
    images = labels[:, :, None, None].expand(-1, -1, 4, 4).clone()
    mixed, targets = objective._mixes(images, labels)
    torch.testing.assert_close(mixed[:, :, 0, 0], targets)
    assert not torch.equal(targets, labels)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("photo,a,b\nx.png,0,2\n", "line 2 of"),
        ("photo,a,b\nx.png,0\n", "has 2 columns"),
        ("photo,names\nx.png,a|b\n", "lacks"),
        ("photo\nx.png\n", "no photos"),
    ],
)
def test_tables_that_are_none(tmp_path, text, words):
    (tmp_path / "train.csv").write_text(text)
    (tmp_path / "classes.txt").write_text("a\n")
    argv = {"dataset": "table", "data_dir": tmp_path, "split": "train", "write_path": tmp_path / "a.beton"}
    assert_user_error(here("write_dataset.py", *(f"--cfg.{name}={value}" for name, value in argv.items())), words)
