"""docs/examples/simclr.py trains: the loss falls, and the weights load into the torchvision model."""

import importlib.util

import torch
import torchvision

from tests.support.scripts import ROOT


def test_a_few_epochs_on_the_generated_photos(betons, tmp_path):
    where = ROOT / "docs" / "examples" / "simclr.py"
    spec = importlib.util.spec_from_file_location("simclr", where)
    simclr = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(simclr)
    small = ["--size=32", "--batch-size=24", "--epochs=3", "--warmup=0", "--lr=0.2", "--strength=0.1", "--workers=2"]
    losses = simclr.train(simclr.parse([str(betons["train"]), f"--out={tmp_path}/encoder.pt", *small, "--device=cpu"]))
    assert len(losses) == 3 and losses[-1] < losses[0]  # 3.85 for outputs that are all alike
    model = torchvision.models.resnet18()
    missing = model.load_state_dict(torch.load(tmp_path / "encoder.pt"), strict=False)
    assert set(missing.missing_keys) == {"fc.weight", "fc.bias"} and not missing.unexpected_keys


def test_the_loss_is_the_papers():
    spec = importlib.util.spec_from_file_location("simclr", ROOT / "docs" / "examples" / "simclr.py")
    simclr = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(simclr)
    views = torch.nn.functional.normalize(torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    total = 0.0
    for i in range(6):
        j = (i + 3) % 6
        others = sum(torch.exp(views[i] @ views[k] / 0.2) for k in range(6) if k != i)
        total -= torch.log(torch.exp(views[i] @ views[j] / 0.2) / others)
    torch.testing.assert_close(simclr.nt_xent(views[:3], views[3:], 0.2), total / 6)
