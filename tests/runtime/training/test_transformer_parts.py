"""The parts of the transformer recipes against numbers worked out here, in NumPy or closed form."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from timm.utils import ModelEmaV3
from torch import nn

from beton.loading.task import Task
from runtime.launch import Rank
from runtime.training import engine, losses, optim, schedules
from runtime.training.checkpoint import Position
from runtime.training.precision import Precision

CPU = torch.device("cpu")


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def random_logits(seed, shape=(6, 10)):
    return np.random.default_rng(seed).normal(size=shape)


def as_tensor(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(("temperature", "factor"), [(3, 50), (5, None)])
def test_mesa_is_the_divergence_from_the_moving_average(temperature, factor):
    student, average = random_logits(0), random_logits(1)
    q, p = softmax(student / temperature), softmax(average / temperature)
    expected = (p * np.log(p / q)).sum(1).mean() * (factor or temperature**2)
    found = losses.mesa_loss(as_tensor(student), as_tensor(average), temperature, factor)
    assert found.item() == pytest.approx(expected)


def test_soft_distillation_divides_by_the_number_of_elements():
    student, teacher = random_logits(0), random_logits(1)
    q, p = softmax(student / 2), softmax(teacher / 2)
    expected = 4 * (p * np.log(p / q)).sum() / student.size
    found = losses.distillation_loss("soft", as_tensor(student), as_tensor(teacher), 2)
    assert found.item() == pytest.approx(expected)


def test_hard_distillation_takes_the_teachers_answer():
    student, teacher = random_logits(0), random_logits(1)
    expected = -np.log(softmax(student))[np.arange(6), teacher.argmax(1)].mean()
    assert losses.distillation_loss("hard", as_tensor(student), as_tensor(teacher), 1).item() == pytest.approx(expected)


def settings_for(**changes):
    training = {
        "mixup": 0.8, "cutmix": 0.0, "mix_probability": 1.0, "mix_switch": 0.5, "loss": "bce", "label_smoothing": 0.1,
        "bce_target_threshold": 0.0, "seed": 3, "epochs": 100,
    }  # fmt: skip
    mesa = {"weight": 0.0, "start": 0.25, "temperature": 3, "factor": 50}
    distillation = {"mode": "none", "alpha": 0.5, "temperature": 1}
    for key, value in changes.items():
        section, name = key.split("__")
        {"training": training, "mesa": mesa, "distillation": distillation}[section][name] = value
    return SimpleNamespace(
        training=SimpleNamespace(**training),
        mesa=SimpleNamespace(**mesa),
        distillation=SimpleNamespace(**distillation),
    )


class Recorder(nn.Module):
    """A linear model that keeps what it was given."""

    def __init__(self, classes=10, pixels=3 * 4 * 4):
        super().__init__()
        self.head = nn.Linear(pixels, classes)
        self.seen = []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return self.head(x.flatten(1))


def batch(count=8):
    g = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, 4, 4, generator=g), torch.randint(10, (count,), generator=g)


def test_bce_with_mixup_trains_towards_both_labels():
    torch.manual_seed(0)
    model = Recorder()
    objective = losses.Objective(settings_for(), 10, model, None, None)
    objective.start_epoch(0)
    images, labels = batch()
    loss = objective(images.clone(), labels)
    # One lambda for the batch, partners half a batch apart: recover it from what the model has seen
    order = torch.tensor([0, 1, 2, 3, 7, 6, 5, 4])
    images, labels = images[order], labels[order]
    mixed, other = model.seen[0], images.flip(0)
    different = (images - other).abs() > 1e-3
    lam = ((mixed - other)[different] / (images - other)[different]).numpy()
    assert lam.std() < 1e-3
    targets = np.zeros((8, 10))
    targets[np.arange(8), labels] = 1
    targets[np.arange(8), labels.flip(0)] = 1  # threshold 0: both are taken for 1
    z = model(mixed).detach().double().numpy()
    expected = (np.log1p(np.exp(z)) - targets * z).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_mixup_of_ranks_is_that_of_the_whole_batch():
    images, labels = batch(16)
    losses_of = []
    for ranks in (1, 2, 4, 8):
        torch.manual_seed(0)
        model = Recorder()
        objective = losses.Objective(settings_for(training__cutmix=1.0), 10, model, None, None)
        found = 0.0
        for rank in range(ranks):
            objective.start_epoch(2, 7)
            found += objective(images[rank::ranks].clone(), labels[rank::ranks]).item() / ranks
        seen = torch.cat(model.seen).flatten(1)
        losses_of.append((found, sorted(seen.sum(1).tolist())))
    for found, rows in losses_of[1:]:
        assert found == pytest.approx(losses_of[0][0], rel=1e-5)
        assert rows == pytest.approx(losses_of[0][1], rel=1e-4, abs=1e-4)


def test_mixup_depends_on_seed_epoch_and_step_alone():
    images, labels = batch()

    def seen(epoch, steps, disturbed=False):
        model = Recorder()
        objective = losses.Objective(settings_for(), 10, model, None, None)
        objective.start_epoch(epoch)
        for _ in range(steps):
            if disturbed:
                np.random.rand(5)
            objective(images.clone(), labels)
        return model.seen

    assert torch.equal(seen(4, 2)[1], seen(4, 2, disturbed=True)[1])
    assert not torch.equal(seen(4, 2)[1], seen(4, 2)[0])
    assert not torch.equal(seen(4, 1)[0], seen(5, 1)[0])


def test_mesa_begins_after_its_share_of_the_epochs():
    settings = settings_for(training__mixup=0.0, training__loss="ce", mesa__weight=0.1)
    average = Recorder()
    objective = losses.Objective(settings, 10, Recorder(), average, None)
    for epoch, calls in ((0, 0), (25, 0), (26, 1), (99, 2)):
        objective.start_epoch(epoch)
        objective(*batch())
        assert len(average.seen) == calls, "one more forward only once it has begun"


def test_distillation_weighs_labels_and_teacher():
    settings = settings_for(
        training__mixup=0.0, training__loss="ce", distillation__mode="hard", distillation__alpha=0.3
    )
    torch.manual_seed(0)
    model, teacher = Recorder(), Recorder()
    images, labels = batch()
    loss = losses.Objective(settings, 10, model, None, teacher)(images, labels)
    z = model(images).detach().double().numpy()
    logs = np.log(softmax(z))
    smoothed = np.full((8, 10), 0.1 / 10)
    smoothed[np.arange(8), labels] += 0.9
    answers = teacher(images).argmax(1).numpy()
    expected = 0.7 * -(smoothed * logs).sum(1).mean() + 0.3 * -logs[np.arange(8), answers].mean()
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def recipe_for(model, optimizer, **more):
    precision = Precision("none", "cpu")
    return engine.Recipe(
        model=model, network=model, optimizer=optimizer, objective=None, eval_loss=None, lrs=None, resolution=None,
        epochs=1, precision=precision, scaler=precision.scaler(), **more,
    )  # fmt: skip


def test_one_step_of_lamb():
    torch.manual_seed(0)
    model = nn.Linear(5, 4)
    weight, bias = model.weight.detach().double().numpy(), model.bias.detach().double().numpy()
    groups = optim.parameter_groups(model, 0.05, decay_norms=False)
    optimizer = optim.build("lamb", groups, 0.9, eps=1e-8)
    (model(torch.randn(7, 5)) ** 2).sum().mul(10).backward()
    grads = [p.grad.double().numpy().copy() for p in (model.weight, model.bias)]
    engine.step(recipe_for(model, optimizer), 0.01)
    # Gradients are clipped to a global norm of 1; Adam with bias correction; the trust ratio |w| / |update|
    norm = math.sqrt(sum((g**2).sum() for g in grads))
    assert norm > 1
    update_w, update_b = (g / norm / (np.abs(g / norm) + 1e-8) for g in grads)
    update_w = update_w + 0.05 * weight
    ratio = np.linalg.norm(weight) / np.linalg.norm(update_w)
    np.testing.assert_allclose(model.weight.detach().numpy(), weight - 0.01 * ratio * update_w, rtol=1e-4)
    # No weight decay: trust ratio 1
    np.testing.assert_allclose(model.bias.detach().numpy(), bias - 0.01 * update_b, rtol=1e-4)


def test_agc_clips_each_unit_to_its_share_of_the_weight_and_spares_the_head():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    before = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.randn_like(p) * 10
    grads = [p.grad.clone() for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=1)
    engine.step(recipe_for(model, optimizer, clip=0.01, clip_mode="agc"), 1.0)
    change = [b - p.detach() for b, p in zip(before, model.parameters(), strict=True)]
    weight, grad = before[0].numpy(), grads[0].numpy()
    limit = 0.01 * np.maximum(np.linalg.norm(weight, axis=1, keepdims=True), 1e-3)
    norm = np.linalg.norm(grad, axis=1, keepdims=True)
    np.testing.assert_allclose(change[0].numpy(), grad * np.minimum(1, limit / norm), rtol=1e-4)
    torch.testing.assert_close(change[2], grads[2])  # timm leaves the last two parameters, the head, alone


def test_clip_by_norm_and_value():
    for mode, expected in (("norm", [0.6, 0.8]), ("value", [1.0, 1.0])):
        model = nn.Linear(2, 1, bias=False)
        before = model.weight.detach().clone()
        model.weight.grad = torch.tensor([[3.0, 4.0]])
        optimizer = torch.optim.SGD(model.parameters(), lr=1)
        engine.step(recipe_for(model, optimizer, clip=1.0, clip_mode=mode), 1.0)
        np.testing.assert_allclose((before - model.weight.detach())[0].numpy(), expected, rtol=1e-4)


def test_moving_average_follows_the_weights():
    model = nn.Linear(2, 1, bias=False)
    average = ModelEmaV3(model, decay=0.9)
    expected = model.weight.detach().double().numpy().copy()
    optimizer = torch.optim.SGD(model.parameters(), lr=1)
    for _ in range(3):
        model.weight.grad = torch.ones_like(model.weight)
        engine.step(recipe_for(model, optimizer, average=average), 0.1)
        expected = 0.9 * expected + 0.1 * model.weight.detach().double().numpy()
    np.testing.assert_allclose(average.module.weight.detach().numpy(), expected, rtol=1e-5)


def test_layer_decay_scales_the_rates():
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10)
    optimizer = optim.build("adamw", optim.parameter_groups(model, 0.05, False, 0.5), 0.9)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    engine.step(recipe_for(model, optimizer), 1.0)
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert rates[id(model.head.weight)] == 1.0
    assert rates[id(model.blocks[11].attn.qkv.weight)] == 0.5
    assert rates[id(model.blocks[0].attn.qkv.weight)] == pytest.approx(0.5**12)
    assert rates[id(model.patch_embed.proj.weight)] == pytest.approx(0.5**13)


class Batches(list):
    """A pipeline of given batches."""

    classes, num_samples, left_out, times = [str(c) for c in range(10)], 12, {}, None

    def batches(self, epoch, start=0):
        return iter(self)


def test_accumulated_batches_make_the_step_of_one_large_batch():
    images, labels = batch(12)
    weights = []
    for parts, accumulate in ((1, 1), (3, 3)):
        torch.manual_seed(0)
        model = Recorder()
        optimizer = torch.optim.SGD(model.parameters(), lr=1)
        recipe = recipe_for(model, optimizer, accumulate=accumulate)
        recipe.objective = lambda x, y, m=model: nn.functional.cross_entropy(m(x), y)
        recipe.lrs = lambda epoch, count: np.full(count, 0.1)
        loader = Batches(zip(images.chunk(parts), labels.chunk(parts), strict=True))
        engine.train_epoch(recipe, engine.EpochSums(Rank(0, 1, CPU), loader, Position(0)))
        weights.append(model.head.weight.detach())
    torch.testing.assert_close(weights[0], weights[1])


def lr_section(**changes):
    settings = {
        "schedule": "cosine", "warmup_epochs": 5, "warmup_lr": 1e-6, "min_lr": 1e-5, "per_iteration": 0,
        "one_epoch_late": 0,
    }  # fmt: skip
    return SimpleNamespace(**(settings | changes))


def test_cosine_once_an_epoch():
    lrs = schedules.warmup_and_cosine(lr_section(), 4e-3, 800, 10)
    assert lrs(0) == pytest.approx(np.full(10, 1e-6))
    assert lrs(4)[0] == pytest.approx(1e-6 + 4 / 5 * (4e-3 - 1e-6))
    for epoch in (5, 400, 799):
        expected = 1e-5 + (4e-3 - 1e-5) * (1 + math.cos(math.pi * epoch / 800)) / 2
        assert lrs(epoch)[7] == pytest.approx(expected)
    assert lrs(805)[0] == pytest.approx(1e-5), "cooldown"


def test_cosine_one_epoch_late_as_deit():
    lrs = schedules.warmup_and_cosine(lr_section(one_epoch_late=1), 4e-3, 800, 3)
    assert lrs(0)[0] == lrs(1)[0] == pytest.approx(1e-6)
    # DeiT III reaches its rate at epoch index 6 (recipes: measured)
    assert lrs(6)[0] == pytest.approx(1e-5 + (4e-3 - 1e-5) * (1 + math.cos(math.pi * 5 / 800)) / 2)


def test_cosine_in_every_iteration():
    lrs = schedules.warmup_and_cosine(lr_section(per_iteration=1, warmup_epochs=20, min_lr=5e-6), 5e-3, 310, 312)
    assert lrs(0)[0] == pytest.approx(1e-6)
    assert lrs(19)[311] == pytest.approx(1e-6 + (20 * 312 - 1) / (20 * 312) * (5e-3 - 1e-6))
    middle = 155 * 312
    expected = 5e-6 + (5e-3 - 5e-6) * (1 + math.cos(math.pi * middle / (310 * 312))) / 2
    assert lrs(155)[0] == pytest.approx(expected)
    assert lrs(312) == pytest.approx(np.full(312, 5e-6))


@pytest.mark.parametrize("world_size", [1, 2, 8])
def test_repeated_augmentation_takes_rasamplers_indices(world_size):
    samples, repeats, batch_size = 1000, 3, 4
    everything = []
    for rank in range(world_size):
        task = Task("d", batch_size, 1, seed=5, rank=rank, world_size=world_size, repeats=repeats)
        found, keys = task.order(samples, epoch=2)
        everything.append((found, keys))
        # RASampler: repeat each index, deal to the ranks in turn, keep floor(N // 256 * 256 / W) on each
        plain, _ = Task("d", 1, 1, seed=5).order(samples, epoch=2)
        expected = np.repeat(plain, repeats)[rank::world_size][: samples // 256 * 256 // world_size]
        expected = expected[: len(expected) // batch_size * batch_size]
        assert found.tolist() == expected.tolist()
        assert len(found) == task.batches(samples) * batch_size
    keys = np.concatenate([k for _, k in everything])
    assert len(np.unique(keys)) == len(keys), "every view has its own augmentation"
    counts = np.bincount(np.concatenate([s for s, _ in everything]), minlength=samples)
    assert set(counts.tolist()) <= {0, 1, 2, 3}
    assert (counts == 3).sum() >= 250
