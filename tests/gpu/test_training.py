"""Training on a GPU, and its rehearsal on the CPU."""

import signal
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from runtime.launch import Rank
from runtime.training import checkpoint, engine, optim
from runtime.training.checkpoint import Position
from runtime.training.precision import Precision
from runtime.training.run import parallel
from tests.support.scripts import forked, free_port, options, run_script
from tests.support.steps import Batches, Over, recipe, sums_of, train
from tests.support.training import RESNET, VIT, Run, log_of

rehearsed_slowly = pytest.mark.parametrize(
    "device", [pytest.param("cuda", marks=pytest.mark.gpu), pytest.param("cpu", marks=pytest.mark.slow)]
)
two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_twenty_steps_wait_for_nothing(device, optimizer):
    """fp16 with its scaler, clipping, accumulation, Mixup, MESA, a moving average."""
    parts = recipe("timm:test_vit", optimizer, device=device, precision="fp16" if device == "cuda" else "none")
    train(parts, sums_of(Batches(device)))  # what is made at the first steps
    sums = sums_of(Batches(device, (4,) * 20))
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        train(parts, sums)
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert sums.position().batch == 20


def test_the_loss_falls_and_an_infinite_gradient_leaves_out_its_step(device):
    parts = recipe("timm:test_vit", "adamw", device=device, precision="fp16")
    parts.objective = lambda images, labels: nn.functional.cross_entropy(parts.model(images), labels)
    losses = [train(parts, sums_of(Batches(device, (6,) * 8))).mean_loss() for _ in range(3)]
    assert losses[2] < losses[0]
    before, scale = [p.detach().clone() for p in parts.model.parameters()], parts.scaler.get_scale()
    parts.scaler.scale(sum(p.sum() for p in parts.model.parameters()) * torch.inf).backward()
    engine.step(parts, 0.1)
    assert all(map(torch.equal, before, parts.model.parameters()))
    assert parts.scaler.get_scale() < scale


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("fused", [True, False])
def test_a_checkpoint_of_the_other_kind_goes_on_fused_or_not_as_it_was_built(tmp_path, device, name, fused):
    """torch takes `fused` from the state that it loads, and the next scaled step failed."""

    def built(fused):
        torch.manual_seed(0)
        model = nn.Linear(8, 4).to(device)
        optimizer = optim.build(name, optim.parameter_groups(model, 0.1, False), 0.9, fused=fused)
        return model, optimizer, torch.amp.GradScaler(device)

    def steps(model, optimizer, scaler, seed):
        for number in range(2):
            torch.manual_seed(seed + number)
            scaler.scale(model(torch.randn(3, 8).to(device)).square().sum()).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()

    before = built(not fused)
    steps(*before, 10)
    path = tmp_path / "checkpoint.pt"
    ranks = [{"generators": checkpoint.generators(), "sums": None}]
    checkpoint.save(checkpoint.capture(Position(1), ranks, {}, [], *before), path)
    after = built(fused)
    checkpoint.restore(checkpoint.load(path), path, 0, *after)
    assert all(bool(group["fused"]) == fused for group in after[1].param_groups)
    for parts in (before, after):
        steps(*parts, 20)
    torch.testing.assert_close(after[0].weight, before[0].weight)


def test_evaluation_is_that_of_the_cpu(device):
    parts = recipe("timm:test_resnet", "sgd", device=device)

    class Once(Batches):
        def batches(self, epoch, start=0):
            try:
                yield from super().batches(epoch, start)
            except Over:
                return

    def evaluate(where):
        rank, none = Rank(0, 1, torch.device(where)), Precision("none", where)
        batches = Once(where, (8, 8, 3))
        return engine.evaluate(parts.model.to(where), batches, nn.CrossEntropyLoss(), none, rank, flip=True)

    found, expected = evaluate(device), evaluate("cpu")
    assert found["val_images"] == 19 and found["top_1"] == pytest.approx(expected["top_1"], abs=1e-3)
    assert found["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-3)


@rehearsed_slowly
@pytest.mark.parametrize("arch", ["train_imagenet.py", "train_transformers.py"])
def test_a_run_and_its_resumption(device, betons, tmp_path, arch):
    """BlurPool; LAMB, Mixup, BCE, a moving average, MESA."""
    given = RESNET if arch == "train_imagenet.py" else VIT | {"mesa.weight": 0.1, "mesa.start": 0}
    given = given | {"training.device": device, "training.batch_size": 24}
    given |= {"training.repeats": 1} if arch == "train_transformers.py" else {}
    given |= {"data.train_dataset": betons["train"], "data.val_dataset": betons["val"], "logging.folder": tmp_path}
    given["training.precision"] = "auto" if device == "cuda" else "none"
    given["data.train_stages"] = "rrc({res})|flip|normalize|erase(0.5)"
    for epochs in (2, 3):
        done = (run_script if device == "cuda" else forked)(arch, *options(given | {"training.epochs": epochs}))
        assert done.returncode == 0, done.stderr
    lines = log_of(tmp_path / "run")
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert all(line["images_per_second"] > 0 for line in lines)
    assert all((line.get("gpu_memory_bytes", 0) > 0) == (device == "cuda") for line in lines)


@rehearsed_slowly
def test_a_compiled_model_takes_two_resolutions(device):
    model = recipe("timm:test_resnet", "sgd", device=device).model
    training = SimpleNamespace(compile=True, compile_mode="default", sync_bn=False)
    images = [torch.randn(4, 3, side, side, device=device) for side in (32, 64)]
    expected = [model.eval()(image) for image in images]
    compiled = parallel(model, training, Rank(0, 1, torch.device(device)))
    for image, output in zip(images, expected, strict=True):
        torch.testing.assert_close(compiled(image), output, rtol=1e-2, atol=1e-2)


_FAILS = """
import sys
from types import SimpleNamespace as S
from runtime import launch
from tests.support import ranks
training, job = S(distributed=1, device="cuda", tf32=1), S(slurm=0, local=0)
there = S(world_size=2, address="localhost", port=int(sys.argv[1]), timeout=600)
launch.run(ranks.one_fails, S(training=training, dist=there, data=S(gpu=0), launch=job))
"""


@pytest.mark.gpu
@two_gpus
def test_a_rank_that_fails_ends_the_other():
    done = run_script("-c", _FAILS, free_port(), timeout=120)
    assert done.returncode == 2 and "error: rank 1 is broken" in done.stderr, done.stderr


@pytest.mark.gpu
@two_gpus
def test_two_gpus_end_after_a_signal_with_different_draws_and_go_on(betons, tmp_path):
    given = RESNET | {"training.device": "cuda", "training.distributed": 1, "dist.world_size": 2}
    given |= {"data.train_dataset": betons["train"], "data.val_dataset": betons["val"], "training.precision": "auto"}
    run = Run(tmp_path, given | {"dist.port": free_port()})
    try:
        run.wait_for((run.run / "checkpoint.pt").exists)
        run.kill(signal.SIGTERM)
        assert run.end() == 143, run.errors
    finally:
        run.stop()
    content = torch.load(run.run / "checkpoint.pt", weights_only=True)
    draws = [rank["generators"]["cuda"] for rank in content["ranks"]]
    assert not torch.equal(*draws)
    again = run_script("train_imagenet.py", *options(given | {"dist.port": free_port(), "logging.folder": tmp_path}))
    assert again.returncode == 0, again.stderr
    assert len(log_of(run.run)) == 3
