"""The loader ffcv_stock: stock FFCV 1.0.2 behind the contract of the loaders, in processes with a time limit."""

import json

import numpy as np
import pytest
import torch
from loading import run_code, task
from training import run_forked

from pipelines.errors import UserError
from pipelines.loaders import open_loader

# Reads argv[1] with FFCV used by hand and with the loader; both, and the facts that are tested, go to argv[2].
READ = """
import json, threading
import numpy as np
import torch
from ffcv.fields.basics import IntDecoder
from ffcv.fields.rgb_image import CenterCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from loading import labels_of, task
from pipelines.loaders import open_loader

path, out = sys.argv[1:]
pipelines = {"image": [CenterCropRGBImageDecoder((24, 24), ratio=0.875)], "label": [IntDecoder()]}
by_hand = Loader(path, 8, num_workers=2, order=OrderOption.SEQUENTIAL, drop_last=False, pipelines=pipelines)
images, labels = map(np.concatenate, zip(*[(images.copy(), labels.copy()) for images, labels in by_hand]))
given = {"stages": "center(24, ratio=0.875)", "shuffle": False, "drop_last": False}
opened = open_loader("ffcv_stock", task(path, **given))
batches = [(images.clone(), labels.clone()) for images, labels in opened]
ours = torch.cat([images for images, _ in batches]).permute(0, 2, 3, 1).numpy()
np.savez(out, images=images, labels=labels[:, 0], ours=ours, our_labels=torch.cat([l for _, l in batches]).numpy())

shuffled = open_loader("ffcv_stock", task(path, stages="rrc(24)|flip|normalize", drop_last=False, epoch=2))
epochs = [labels_of(shuffled), labels_of(shuffled)]
images, labels = next(left := iter(shuffled))
facts = {
    "length": len(opened), "num_samples": opened.num_samples, "classes": opened.classes,
    "description": opened.description, "sizes": [len(labels) for _, labels in batches], "epochs": epochs,
    "shape": list(images.shape), "types": [str(images.dtype), str(labels.dtype)],
    "channels_last": images.is_contiguous(memory_format=torch.channels_last),
    "range": [images.min().item(), images.max().item()],
}
left.close()
facts["threads"] = [thread.name for thread in threading.enumerate()]

def broken(**_):
    raise ValueError("a stage broke")

shuffled._stock.code = [(broken, [])], []
try:
    list(shuffled)
except RuntimeError as error:
    facts["failure"] = str(error)
print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def read(numbered, tmp_path_factory):
    out = tmp_path_factory.mktemp("read") / "read.npz"
    printed = run_code(READ, numbered["beton"], out, timeout=240)
    return np.load(out), json.loads(printed.splitlines()[-1])


def test_a_centre_crop_is_that_of_ffcv_used_by_hand(read):
    arrays, _ = read
    np.testing.assert_array_equal(arrays["ours"], arrays["images"])
    np.testing.assert_array_equal(arrays["our_labels"], arrays["labels"])
    assert arrays["our_labels"].tolist() == list(range(45))


def test_it_keeps_the_contract_of_the_loaders(read):
    _, facts = read
    assert (facts["length"], facts["num_samples"], facts["sizes"]) == (6, 45, [8] * 5 + [5])
    assert facts["classes"] == [f"c{i:03d}" for i in range(45)]
    assert facts["shape"] == [8, 3, 24, 24] and facts["channels_last"]
    assert facts["types"] == ["torch.float32", "torch.int64"]
    assert -2.2 < facts["range"][0] < 0 < facts["range"][1] < 2.7
    assert "FFCV 1.0.2" in facts["description"] and "used again" in facts["description"]


def test_an_epoch_has_every_sample_once_and_follows_its_number(read):
    _, facts = read
    third, fourth = facts["epochs"]
    assert sorted(third) == sorted(fourth) == list(range(45))
    assert third != fourth
    rng = [np.random.default_rng(epoch) for epoch in (2, 3)]  # FFCV's own order: seed 0 + epoch
    assert [third, fourth] == [generator.permutation(45).tolist() for generator in rng]


def test_an_epoch_left_early_leaves_no_threads_and_a_failure_is_an_exception(read):
    _, facts = read
    assert facts["threads"] == ["MainThread"]
    assert "FFCV failed in batch 1 of" in facts["failure"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stages": "rrc(24)|gray|normalize"}, "no stage 'gray'"),
        ({"stages": "rrc(24, interpolation='bicubic')"}, "no interpolation 'bicubic'"),
        ({"repeats": 3}, "no repeated augmentation; use the loader ffcv"),
        ({"world_size": 2}, "one process only; use the loader ffcv"),
        ({"dtype": torch.bfloat16}, "not torch.bfloat16; set float32"),
        ({"device": "cuda"}, "on the host only; use the loader ffcv"),
        ({"batch_size": 64}, "too few for one batch"),
    ],
)
def test_what_ffcv_cannot_do_is_said(numbered, changes, words):
    with pytest.raises(UserError, match=words):
        open_loader("ffcv_stock", task(numbered["beton"], **changes))


def test_the_profiler_measures_it(numbered, tmp_path):
    done = run_forked(
        "profile_loaders.py", f"--profile.dataset={numbered['beton']}", "--profile.stages=center(24)",
        "--profile.loaders=ffcv_stock", "--profile.batch_size=16", "--profile.rounds=1", "--profile.seconds=0",
        f"--profile.out={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert row["loader"] == "ffcv_stock" and row["images_per_second"]["median"] > 0
