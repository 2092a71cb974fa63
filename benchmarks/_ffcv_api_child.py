"""One loader in a process of its own, for ffcv_api.py.

It prints a line of JSON once its first batch is there, then one for each line that it reads (seconds to measure for).
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torchvision.transforms import Normalize

MEAN, STD = np.array([0.485, 0.456, 0.406]) * 255, np.array([0.229, 0.224, 0.225]) * 255
FILL = (125, 123, 114)
# What beton.Loader is told for each chain; it has none like the user's own
STAGES = {
    "imagenet": "rrc(224)|flip|normalize",
    "cifar": f"center(32, 1)|flip|translate(2, {FILL})|cutout(4, {FILL})|normalize",
}


def own_operation(package: str) -> Callable:
    """A user's operation, as public code has them: the brightness of each image changed, compiled by numba."""
    pipeline = importlib.import_module(f"{package}.pipeline.operation")
    compiler = importlib.import_module(f"{package}.pipeline.compiler").Compiler
    query = importlib.import_module(f"{package}.pipeline.allocation_query").AllocationQuery

    class Brighter(pipeline.Operation):
        def generate_code(self):
            my_range = compiler.get_iterator()

            def brighter(images, target):
                for i in my_range(images.shape[0]):
                    factor = np.random.uniform(0.6, 1.4)
                    target[i] = np.clip(images[i] * factor, 0, 255)
                return target

            brighter.is_parallel = True
            return brighter

        def declare_state_and_memory(self, previous_state):
            state = replace(previous_state, jit_mode=True)
            return state, query(previous_state.shape, previous_state.dtype)

    return Brighter


def pipelines(package: str, chain: str) -> dict:
    """The pipelines of a chain, made of FFCV's names."""
    decoders = importlib.import_module(f"{package}.fields.decoders")
    ops = importlib.import_module(f"{package}.transforms")
    label = [decoders.IntDecoder(), ops.ToTensor(), ops.Squeeze()]
    crop = decoders.RandomResizedCropRGBImageDecoder((224, 224))
    normalize = ops.NormalizeImage(MEAN, STD, np.float32)
    if chain == "imagenet":
        image = [crop, ops.RandomHorizontalFlip(), normalize, ops.ToTensor(), ops.ToTorchImage()]
    elif chain == "own":
        image = [crop, own_operation(package)(), ops.ToTensor(), ops.ToTorchImage()]
    else:
        changed = [ops.RandomHorizontalFlip(), ops.RandomTranslate(2, FILL), ops.Cutout(4, FILL)]
        to_float = [ops.ToTensor(), ops.ToTorchImage(), ops.Convert(torch.float32), Normalize(MEAN, STD)]
        image = [decoders.SimpleRGBImageDecoder(), *changed, *to_float]
    return {"image": image, "label": label}


def loader_of(side: str, chain: str, path: str, batch: int, workers: int):
    """The loader of a side: 'beton' (beton.Loader), 'beton.ffcv' or 'ffcv' (stock)."""
    if side == "beton":
        import beton

        return beton.Loader(path, batch, image=STAGES[chain], workers=workers, drop_last=True)
    module = importlib.import_module(f"{side}.loader")
    about = {"batch_size": batch, "num_workers": workers, "order": module.OrderOption.RANDOM, "seed": 0}
    return module.Loader(path, pipelines=pipelines(side, chain), **about)


def main(side: str, chain: str, path: str, batch: int, workers: int) -> None:
    """See above."""
    started = time.perf_counter()
    loader = loader_of(side, chain, path, batch, workers)
    batches = iter(loader)
    next(batches)
    print(json.dumps({"first_batch": time.perf_counter() - started}), flush=True)
    for _ in batches:
        pass
    for line in sys.stdin:
        wall, cpu, images = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - wall < float(line):
            for _ in loader:
                images += batch
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(json.dumps({"images_per_second": images / wall, "cpu_ms_per_image": 1000 * cpu / images}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:]))
