"""What a user of the installed library does first; tests/wheel.sh runs it where nothing else is installed.

Runs the lines at the top of README.md; writes a .beton, reads it, and trains on it for ten steps. Only `beton` and what
it depends on is imported.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import beton

COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "pkg-config")


def photos(count: int) -> list[tuple[np.ndarray, int]]:
    """(pixels, label): class 0 is dark, class 1 is light."""
    rng = np.random.default_rng(0)
    return [(rng.integers(100 * (i % 2), 100 * (i % 2) + 150, (48, 64, 3), np.uint8), i % 2) for i in range(count)]


def train(path: Path, steps: int) -> list[float]:
    """The loss of each step."""
    import torch

    torch.manual_seed(0)
    loader = beton.Loader(path, batch_size=32, image="rrc(32)|flip|normalize", workers=2)
    model = torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(48, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    while len(losses) < steps:
        for images, labels in loader:
            loss = torch.nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    loader.close()
    return losses[:steps]


def run_readme() -> dict:
    """Run the first block of README.md as it stands, in the current folder; returns the names that it made."""
    readme = Path(__file__).parents[2] / "README.md"
    code = readme.read_text().partition("```python\n")[2].partition("```")[0]
    names = {"dataset": photos(300)}
    exec(compile(code, str(readme), "exec"), names)
    return names


def load_as_ffcv(path: Path) -> None:
    """A loader as FFCV's users write it, without FFCV."""
    from beton.ffcv.fields.decoders import CenterCropRGBImageDecoder, IntDecoder
    from beton.ffcv.loader import Loader, OrderOption
    from beton.ffcv.transforms import ToTensor, ToTorchImage

    pipelines = {"image": [CenterCropRGBImageDecoder((32, 32), 1), ToTensor(), ToTorchImage()]}
    pipelines["label"] = [IntDecoder(), ToTensor()]
    images, labels = next(iter(Loader(path, 32, 2, order=OrderOption.SEQUENTIAL, pipelines=pipelines)))
    if images.shape != (32, 3, 32, 32) or labels.flatten().tolist() != [0, 1] * 16:
        raise SystemExit("beton.ffcv gives another batch")


def main() -> None:
    """Ends with an exception where anything is not as it should be."""
    found = [name for name in COMPILERS if shutil.which(name)]
    if found:
        raise SystemExit(f"there is {found[0]} on PATH: this shows nothing")
    started, dataset = time.monotonic(), photos(128)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        names = run_readme()
        if len(names["file"]) != 300 or names["images"].shape[1:] != (3, 224, 224) or names["epoch"] != 15:
            raise SystemExit("the lines of README.md do something else than they say")
        for mode in ("raw", "jpg", "blocks"):
            path = Path(folder) / f"{mode}.beton"
            beton.write(dataset, path, workers=2, write_mode=mode, classes=["dark", "light"])
            with beton.open(path) as file:
                pixels, label = file[17]
                if len(file) != 128 or label != 1 or file.classes != ["dark", "light"]:
                    raise SystemExit(f"{mode}: the file has other samples")
                difference = np.abs(pixels.astype(int) - dataset[17][0]).mean()
                if difference > {"raw": 0, "jpg": 30, "blocks": 30}[mode]:
                    raise SystemExit(f"{mode}: other pixels, by {difference} on average")
            losses = train(path, 10)
            load_as_ffcv(path)
            if not losses[-1] < 0.8 * losses[0]:
                raise SystemExit(f"{mode}: ten steps do not learn: {losses}")
    version = sys.version.split()[0]
    print(f"Python {version}: README's lines run; written, read and trained on in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
