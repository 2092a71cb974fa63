"""SimCLR in one file: two views of each photo of a .beton, which is decoded once for both.

    python docs/examples/simclr.py train.beton --epochs 100 --out simclr.pt

Chen, Kornblith, Norouzi and Hinton, "A Simple Framework for Contrastive Learning of Visual Representations", 2020,
without the hue of its colour jitter. Of the batch's 2N views, each must find the other one of its photo. `simclr.pt`
has the weights of the encoder, which load into the torchvision model.
"""

import argparse
import math
import time

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import beton

STAGES = "rrc({size})|flip|jitter({strength})|gray(0.2)|blur(p=0.5)|normalize"


class Encoder(nn.Module):
    """A torchvision model without its classifier (`features`), and the head whose output (N x 128) is compared."""

    def __init__(self, arch: str):
        super().__init__()
        self.features = torchvision.models.get_model(arch)
        width = self.features.fc.in_features
        self.features.fc = nn.Identity()
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 128))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Projections of images (N x 3 x H x W), of length 1."""
        return F.normalize(self.head(self.features(images)), dim=1)


def nt_xent(first: torch.Tensor, second: torch.Tensor, temperature: float) -> torch.Tensor:
    """The paper's equation (1), averaged over both views (each N x D, of length 1)."""
    both = torch.cat([first, second])
    similar = both @ both.T / temperature
    similar.fill_diagonal_(-math.inf)  # a view is not compared with itself
    count = len(first)
    other = (torch.arange(2 * count, device=both.device) + count) % (2 * count)
    return F.cross_entropy(similar, other)


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up, then half a cosine down to 0."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak / 2 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def train(options: argparse.Namespace) -> list[float]:
    """Train the encoder; returns the mean loss of each epoch."""
    torch.manual_seed(options.seed)
    device = torch.device(options.device)
    stages = STAGES.format(size=options.size, strength=options.strength)
    loader = beton.Loader(
        options.path, options.batch_size, views={"pair": (stages, 2)}, columns=[], device=device,
        workers=options.workers, seed=options.seed, drop_last=True,
    )  # fmt: skip
    model = Encoder(options.arch).to(device, memory_format=torch.channels_last)
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]  # biases and norms have no decay
    groups = [{"params": weights, "weight_decay": options.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=options.lr, momentum=0.9)
    steps, step, losses = options.epochs * len(loader), 0, []
    with loader:
        for epoch in range(options.epochs):
            total, started = torch.zeros((), device=device), time.perf_counter()
            for ((first, second),) in loader:
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(step, steps, options.lr, options.warmup * len(loader))
                with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
                    projections = model(torch.cat([first, second]))  # norms see both views
                loss = nt_xent(*projections.float().chunk(2), options.temperature)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                total, step = total + loss.detach(), step + 1
            losses.append(total.item() / len(loader))
            photos = len(loader) * options.batch_size / (time.perf_counter() - started)
            print(f"epoch {epoch}: loss {losses[-1]:.4f}, {photos:.0f} photos/s", flush=True)
    features = {name: value for name, value in model.features.state_dict().items() if not name.startswith("fc.")}
    torch.save(features, options.out)
    return losses


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", help="a .beton")
    parser.add_argument("--out", default="simclr.pt", help="where the encoder's weights go")
    parser.add_argument("--arch", default="resnet18", help="a ResNet of torchvision")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--size", type=int, default=224, help="side of the views in pixels")
    parser.add_argument("--strength", type=float, default=0.8, help="of the colour jitter")
    parser.add_argument("--lr", type=float, default=0.3, help="at its peak; 0.3 for each 256 photos of a batch")
    parser.add_argument("--warmup", type=int, default=10, help="epochs")
    parser.add_argument("--weight-decay", type=float, default=1e-4)
    parser.add_argument("--temperature", type=float, default=0.5)
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--workers", type=int, default=None, help="threads of the loader (default: all cores)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


if __name__ == "__main__":
    train(parse())
