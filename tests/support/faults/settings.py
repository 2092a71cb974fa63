"""Faults of settings and weights: stock is what ffcv-imagenet uses, fastargs and torch.save."""

import os

import numpy as np

from tests.support.faults.table import Wrong, full_disk, part

fault = part("Settings and weights")
NAME = "lr.lr"  # of a parameter, and of a variable of the environment
YAML = "data: {num_workers: 3}"


@fault("a misspelt key in a YAML file", "silent: (fastargs) the default is used",
       "error that names key and file, and what may be meant", "unknown key 'data.num_worker'",
       "did you mean")  # fmt: skip
def misspelt_key(side, folder):
    if side.settings("data: {num_worker: 12}", [], folder)[0] != 12:
        raise Wrong("silent", "the default is used")


@fault("`--data.in_memory=False`", "silent: (fastargs) is taken for true", "false")
def false_is_false(side, folder):
    if side.settings(YAML, ["--data.in_memory=False"], folder)[1]:
        raise Wrong("silent", "true")


@fault("a value that is no number: `--lr.lr=fast`", "exits with status 0: (fastargs) a shell script would go on",
       "error that names the parameter, status 2", "lr.lr=fast is not a float")  # fmt: skip
def invalid_value(side, folder):
    side.settings(YAML, ["--lr.lr=fast"], folder)


@fault("half a worker: `num_workers: 1.5`", "silent: (fastargs) 1", "error that names the parameter",
       "data.num_workers=1.5 is not an int")  # fmt: skip
def half_a_worker(side, folder):
    if side.settings("data: {num_workers: 1.5}", [], folder)[0] != 1.5:
        raise Wrong("silent", "1")


@fault("a variable of the environment is named like a parameter", "silent: (fastargs) it beats the command line",
       "never read")  # fmt: skip
def environment(side, folder):
    os.environ[NAME] = "9"
    try:
        found = side.settings(YAML, ["--lr.lr=0.1"], folder)[2]
    finally:
        del os.environ[NAME]
    if found != 0.1:
        raise Wrong("silent", f"{found}")


def weights(value: float) -> dict:
    import torch

    return {"weight": torch.full((4096,), value)}


@fault("a bit of a checkpoint is another", "silent: (torch.save) other weights are loaded", "error that names the file",
       "weights.pt is damaged")  # fmt: skip
def damaged_weights(side, folder):
    path = folder / "weights.pt"
    side.save(weights(0.5), path)
    content = bytearray(path.read_bytes())
    content[content.index(np.float32(0.5).tobytes() * 100) + 42] ^= 1
    path.write_bytes(content)
    if (side.load(path)["weight"] != 0.5).any():
        raise Wrong("silent", "other weights")


@fault("the disk is full when weights are saved again", "loses data: (torch.save) the ones before are gone",
       "error that names the file; the ones before are as they were", "cannot write", "weights.pt")  # fmt: skip
def no_room_for_weights(side, folder):
    path = folder / "weights.pt"
    side.save(weights(0.5), path)
    try:
        with full_disk(6000):
            side.save(weights(0.7), path)
    finally:
        try:
            kept = bool((side.load(path)["weight"] == 0.5).all())
        except Exception as error:
            raise Wrong("loses data", str(error)) from error
        if not kept:
            raise Wrong("loses data")
