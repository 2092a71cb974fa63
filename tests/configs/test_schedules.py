"""The learning rates of every file under vit_configs/: the first, the last of the warm-up, the middle and the last."""

import math
from dataclasses import dataclass
from fnmatch import fnmatch

import pytest
import torch

from beton.loading.task import Task
from runtime.launch import Rank
from tests.support.configs import each_file, name_of, settings_of
from train_transformers import learning_rates

CPU = torch.device("cpu")
# Photos. DeiT III's ImageNet-21k; the FFCV document's Imagenette
IMAGENET, IMAGENET_21K, IMAGENETTE, CLOTHING = 1_281_167, 13_153_500, 9_469, 3_068


@dataclass(frozen=True)
class Plan:
    """A schedule as recipes.md has it: linear from 1e-6, then a cosine whose phase counts from epoch 0."""

    peak: float
    epochs: int
    batches: int  # in an epoch
    photos: int = IMAGENET
    warmup: int = 5
    floor: float = 1e-5
    cooldown: int = 0  # epochs at the floor
    smooth: bool = False  # changes in every iteration; else once an epoch, and one epoch late as in DeiT's loop

    @property
    def iterations(self):
        return (self.epochs + self.cooldown) * self.batches

    def rate(self, iteration):
        """By the closed formula."""
        time = iteration / self.batches if self.smooth else max(0, iteration // self.batches - 1)
        if time < self.warmup:
            return 1e-6 + (self.peak - 1e-6) * time / self.warmup
        if time >= self.epochs:
            return self.floor
        return self.floor + (self.peak - self.floor) * (1 + math.cos(math.pi * time / self.epochs)) / 2

    def looked_at(self):
        """The iterations that are looked at: the first, the last of the warm-up (if there is one), middle, last."""
        warmup = (self.warmup + (not self.smooth)) * self.batches - 1 if self.warmup else 0
        return 0, warmup, self.iterations // 2, self.iterations - 1


# Batches in an epoch: photos // global batch. With repeated augmentation an epoch has photos // 256 * 256
# images, which makes a difference for the smallest data set alone (44 and not 47).
# Scaled rates: 5e-4 for each 512 images of the global batch
PLANS = {
    "deit3/s_1k_224": Plan(4e-3, 800, 625),
    "deit3/[bl]_1k_192": Plan(3e-3, 800, 625),
    "deit3/h_1k_160": Plan(3e-3, 800, 625),
    "deit3/*_finetune": Plan(1e-5, 20, 2502),  # constant: the floor is the rate
    "deit3/[sbl]_21k_224": Plan(1e-3, 240, 6422, IMAGENET_21K),
    "deit3/h_21k_128": Plan(1e-3, 90, 6422, IMAGENET_21K),
    "deit3/?_21k_to_1k_224": Plan(3e-4, 50, 625),
    "deit/*": Plan(1e-3, 300, 1251),
    "three_things/*": Plan(1e-3, 300, 1251),
    "cait/*_224": Plan(1e-3, 400, 1251),
    "cait/*_finetune": Plan(5e-6, 30, 2502, floor=5e-6),
    "resmlp/*": Plan(5e-3, 400, 625),
    "patchconvnet/*": Plan(3e-3, 300, 625),
    "levit_*_1000_epochs": Plan(2e-3, 1000, 625),
    "fastervit/faster_vit_[!3]": Plan(5e-3, 310, 312, warmup=20, floor=5e-6, cooldown=10, smooth=True),
    "fastervit/faster_vit_3": Plan(5e-3, 310, 312, warmup=35, floor=5e-6, cooldown=10, smooth=True),
    "vit_b_16": Plan(1e-5, 300, 147, IMAGENETTE, warmup=0),
    "levit_128s": Plan(1e-5, 300, 147, IMAGENETTE, warmup=0),
    "clothing/levit_128s": Plan(2e-3, 20, 95, CLOTHING, warmup=2, smooth=True),
    "clothing/cait_xxs24": Plan(1e-3, 10, 47, CLOTHING, warmup=2, smooth=True),
    "clothing/resmlp_12": Plan(1e-3, 10, 47, CLOTHING, warmup=2, smooth=True),
    "clothing/deit3_tiny": Plan(3e-3, 3, 44, CLOTHING, warmup=1, smooth=True),
    "clothing/patchconvnet_s60": Plan(1e-3, 5, 95, CLOTHING, warmup=1, smooth=True),
    "clothing/faster_vit_0": Plan(1e-3, 1, 95, CLOTHING, warmup=0, smooth=True),
    "clothing/document_vit_b_16": Plan(1e-4, 3, 95, CLOTHING, warmup=0, floor=1e-4),
    "clothing/document_levit_128s": Plan(1e-3, 5, 95, CLOTHING, warmup=0, floor=1e-3),
}


@each_file
def test_learning_rates(path):
    found = settings_of(path)
    (plan,) = [plan for pattern, plan in PLANS.items() if fnmatch(name_of(path), pattern)]
    training, world_size = found.training, found.dist.world_size
    task = Task("d", training.batch_size, 1, world_size=world_size, repeats=training.repeats)
    assert task.batches(plan.photos) == plan.batches
    assert training.epochs + found.lr.cooldown_epochs == plan.epochs + plan.cooldown
    for iteration in plan.looked_at():
        epoch, batch = divmod(iteration, plan.batches)
        rates = learning_rates(found, Rank(0, world_size, CPU), epoch, plan.batches)
        assert len(rates) == plan.batches
        assert rates[batch] == pytest.approx(plan.rate(iteration), rel=1e-9), iteration


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        # 1e-6 + 4 / 5 (4e-3 - 1e-6); 1e-5 + 3.99e-3 (1 + cos(399 pi / 800)) / 2; the same with 798
        ("deit3/s_1k_224", (1e-6, 3.2002e-3, 2.012834e-3, 1.006153e-5)),
        # 1e-6 + 6239 / 6240 (5e-3 - 1e-6); 5e-6 + 4.995e-3 (1 + cos(160 pi / 310)) / 2; the cooldown's
        ("fastervit/faster_vit_[!3]", (1e-6, 4.999199e-3, 2.376004e-3, 5e-6)),
        ("deit3/*_finetune", (1e-6, 8.2e-6, 1e-5, 1e-5)),
        ("vit_b_16", (1e-5, 1e-5, 1e-5, 1e-5)),
    ],
)
def test_the_formula_against_numbers_by_hand(name, by_hand):
    plan = PLANS[name]
    assert [plan.rate(iteration) for iteration in plan.looked_at()] == pytest.approx(by_hand, rel=1e-6)
