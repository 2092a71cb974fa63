"""Nothing in a step, or in a validation batch, waits for the GPU: on `meta`, to read a number of the device's fails.

So does it where a tensor of the host's meets one of the device's.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from runtime.launch import Rank
from runtime.training import engine, models
from runtime.training.clip import clip_gradients
from runtime.training.precision import Precision
from tests.support.dispatch import operations
from tests.support.steps import META, Batches, Over, recipe, train


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lamb"])
@pytest.mark.parametrize("arch", ["timm:test_resnet", "timm:test_vit"])
def test_training_waits_for_nothing(arch, optimizer):
    train(recipe(arch, optimizer))


def reads_the_loss(loss):
    return loss * (1.0 if loss.item() else 2.0)


def weighs_on_the_host(loss):
    return (loss * torch.ones(3)).sum()


@pytest.mark.parametrize("spoil", [reads_the_loss, weighs_on_the_host])
def test_a_step_that_waits_is_caught(spoil):
    with pytest.raises(RuntimeError, match=r"item\(\)|meta"):
        train(recipe("timm:test_resnet", "sgd", spoil))


def test_validation_waits_for_nothing():
    model = models.build("timm:test_resnet", 3).to(META)
    with pytest.raises(Over):
        engine.evaluate(model, Batches(), nn.CrossEntropyLoss(), Precision("none", "cpu"), Rank(0, 1, META), flip=True)


def test_a_validation_batch_reads_no_number_and_sends_none():
    """What meta does not notice: numbers of Python that become tensors of the device."""
    model, cpu = models.build("timm:test_resnet", 3), Rank(0, 1, torch.device("cpu"))

    def evaluate():
        with pytest.raises(Over):
            engine.evaluate(model, Batches("cpu"), nn.CrossEntropyLoss(), Precision("none", "cpu"), cpu, flip=True)

    found = operations(evaluate)
    assert not [name for name in found if "scalar_dense" in name or "lift_fresh" in name or "nonzero" in name]


def test_the_last_batch_is_filled_up_to_the_others_and_gives_the_same():
    seen = []

    class Model(nn.Module):
        def forward(self, images):
            seen.append((images.shape[0], images.is_contiguous(memory_format=torch.channels_last)))
            return images.mean((2, 3))

    class Noise(Batches):
        def batches(self, epoch, start=0):
            draws = torch.Generator().manual_seed(0)
            for rows in (4, 4, 1):
                images = torch.randn(rows, 3, 8, 8, generator=draws).contiguous(memory_format=torch.channels_last)
                yield images, torch.randint(0, 3, (rows,), generator=draws)

    batches, cpu = Noise("cpu"), Rank(0, 1, torch.device("cpu"))
    found = engine.evaluate(Model(), batches, nn.CrossEntropyLoss(), Precision("none", "cpu"), cpu, flip=True)
    assert seen == [(4, True)] * 6
    images, labels = map(torch.cat, zip(*batches.batches(0), strict=True))
    outputs = images.mean((2, 3))
    assert found["val_images"] == 9 and found["top_5"] == 1
    assert found["top_1"] == (outputs.argmax(1) == labels).sum().item() / 9
    assert found["val_loss"] == pytest.approx(F.cross_entropy(outputs, labels).item(), rel=1e-5)


def gradients(model, scale):
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter) * scale
    model.layer4[1].conv2.weight.grad[:7] = 0


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 10.0])
def test_adaptive_clipping_is_timms(scale):
    from timm.models import model_parameters
    from timm.utils import adaptive_clip_grad

    torch.manual_seed(0)
    model = models.build("resnet18", 10)
    gradients(model, scale)
    adaptive_clip_grad(model_parameters(model, exclude_head=True), 0.01)
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    gradients(model, scale)
    clip_gradients(model, 0.01, "agc")
    torch.testing.assert_close([parameter.grad for parameter in model.parameters()], expected)
