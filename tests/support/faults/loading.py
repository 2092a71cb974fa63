"""Faults of loading."""

import resource
import sys
import threading
import time
from pathlib import Path

import numpy as np

from tests.support.faults.table import Source, Wrong, compare, difference, gather, make, part, read_all

fault = part("Loading")


@fault("an index beyond the last sample", "aborts or wrong samples or hangs: reads whatever lies in memory there",
       "error that names it", "sample 1000000 of", "a.beton is out of range")  # fmt: skip
def index_out_of_range(side, folder):
    path, _ = make(side, folder)
    if side.samples(path, [0, 1, 10**6]):
        raise Wrong("wrong samples", "for an index that there is not")


@fault("more workers than cores", "error: ValueError", "as many as there are cores; the log says so")
def more_workers_than_cores(side, folder):
    path, photos = make(side, folder)
    compare(*read_all(side, path, workers=1000), photos)


@fault("torch's number of threads", "silent: set to the loader's workers", "left alone", apart=True)
def torch_threads(side, folder):
    import torch

    path, photos = make(side, folder)
    torch.set_num_threads(2)
    compare(*read_all(side, path, workers=1), photos)
    if torch.get_num_threads() != 2:
        raise Wrong("silent", f"torch has {torch.get_num_threads()} thread instead of 2")


@fault("all batches of an epoch are kept: `list(loader)`", "wrong samples: a buffer is written over",
       "each batch stays as it is")  # fmt: skip
def all_batches_kept(side, folder):
    path, photos = make(side, folder, "raw", 80)
    batches = list(side.loader(path, batch_size=4))
    images, labels = (np.concatenate([f(batch) for batch in batches]) for f in (side.pixels, side.labels))
    if len(set(labels.tolist())) < 80:
        raise Wrong("wrong samples", f"{len(set(labels.tolist()))} of 80")
    compare(images, labels, photos)


@fault("the batch before is used after the next has come", "wrong pixels: it has been written over",
       "it stays as it is")  # fmt: skip
def batch_before(side, folder):
    path, photos = make(side, folder, "raw", 80)
    before, changed = None, 0
    for batch in side.loader(path, batch_size=4):
        if before is not None:
            time.sleep(0.02)  # a step; the loader works ahead
            changed += not np.array_equal(side.pixels(before[0]), before[1])
        before = batch, side.pixels(batch).copy()
    if changed:
        raise Wrong("wrong pixels", f"{changed} of 19 batches changed")


@fault("an epoch is left early (`break`)", "leaks: a thread and its buffers, each time",
       "its threads end with it")  # fmt: skip
def epoch_left(side, folder):
    path, _ = make(side, folder, "raw", 80)
    loader, before = side.loader(path, batch_size=2), threading.active_count()
    for _ in range(5):
        for _ in loader:
            break
    deadline = time.monotonic() + 3
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    if threading.active_count() > before:
        raise Wrong("leaks", f"{threading.active_count() - before} threads after 5 epochs")


@fault("a stage of the pipeline raises an exception", "hangs: a traceback, then silence",
       "error that names exception, samples and file", "a stage failed (ZeroDivisionError", "samples 0, 1, 2",
       "a.beton")  # fmt: skip
def failing_stage(side, folder):
    path, _ = make(side, folder)
    with side.failing_stage() as how:
        list(side.loader(path, **how))


@fault("an epoch again, all seeds the same", "not reproducible: other crops and flips", "same pixels")
def same_seeds(side, folder):
    path, _ = make(side, folder, "raw")
    loader = side.loader(path, augment=True, shuffle=True, seed=7)
    first, again = gather(side, loader), gather(side, side.again(loader))
    if not np.array_equal(first[1], again[1]):
        raise Wrong("wrong samples", "another order")
    if not np.array_equal(first[0], again[0]):
        raise Wrong("not reproducible", "the same order, other pixels")


@fault("a run resumes in the middle of an epoch", "starts over: there is no way to say so",
       "the rest of the epoch, pixel by pixel (`training.resume`)")  # fmt: skip
def rest_of_an_epoch(side, folder):
    path, _ = make(side, folder, "raw", 40)
    whole = read_all(side, path, shuffle=True, seed=7, epoch=3)
    rest = read_all(side, path, shuffle=True, seed=7, epoch=3, start=2)
    if len(rest[1]) != 40 - 16:
        raise Wrong("starts over", f"{len(rest[1])} samples instead of 24")
    if not np.array_equal(rest[1], whole[1][16:]):
        raise Wrong("wrong samples")


@fault("an evaluation with the loader's defaults", "wrong samples: the last ones are left out",
       "every photo once")  # fmt: skip
def evaluation(side, folder):
    path, _ = make(side, folder)
    labels = [int(label) for batch in side.evaluation(path, batch_size=8) for label in side.labels(batch)]
    if labels != list(range(20)):
        raise Wrong("wrong samples", f"{len(labels)} of 20")


@fault("a batch size larger than the data set", "silent: an epoch of no batches", "error that names both numbers",
       "20 samples, too few for one batch of 64")  # fmt: skip
def too_large_a_batch(side, folder):
    path, _ = make(side, folder)
    if not list(side.loader(path, batch_size=64, drop_last=True)):
        raise Wrong("silent", "no batches")


@fault("an evaluation by three ranks", "wrong samples: some count twice", "every photo once")
def evaluation_by_ranks(side, folder):
    path, _ = make(side, folder)
    samples = sum(side.order_of_ranks(path, 3), [])
    if sorted(samples) != list(range(20)):
        raise Wrong("wrong samples", f"{len(samples)} instead of 20")


@fault("several ranks, a file larger than memory (quasi-random order)", "error: NotImplementedError",
       "every photo once")  # fmt: skip
def quasi_random_ranks(side, folder):
    path, _ = make(side, folder)
    samples = sum(side.order_of_ranks(path, 2, shuffle=True, in_memory=False), [])
    if sorted(samples) != list(range(20)):
        raise Wrong("wrong samples", f"{len(samples)} instead of 20")


@fault("two loaders have the same pipeline",
       "wrong pixels: the first has taken the crop from the list, the second has none",
       "it is a text; both do the same")  # fmt: skip
def same_pipeline_twice(side, folder):
    path, _ = make(side, folder)
    how = side.pipeline(size=16)
    for number in range(2):
        images, _ = read_all(side, path, **how)
        if images.shape != (20, 16, 16, 3):
            raise Wrong("wrong pixels", f"images of the shape {images.shape} from loader {number}")


@fault("normalize in a wrong place of the pipeline", "hangs: turns in circles in the constructor",
       "error that says where to put it", "put normalize last")  # fmt: skip
def normalize_in_a_wrong_place(side, folder):
    path, _ = make(side, folder)
    side.loader(path, **side.pipeline(wrong_order=True))


@fault("the crop's scale is changed between two epochs", "silent: it stays as it was",
       "the next epoch has it")  # fmt: skip
def scale_changed(side, folder):
    """From parts of a photo to whole photos."""
    path, photos = make(side, folder, "raw")
    _, large = side.epochs_of_two_scales(path, (0.1, 0.1), (1.0, 1.0))
    if not all(difference(image, photo) < 8 for image, photo in zip(large, photos, strict=True)):
        raise Wrong("silent", "still parts")


@fault("a batch of one sample", "wrong samples: `Squeeze` takes the batch away too: labels without a shape",
       "labels have the shape (1,)")  # fmt: skip
def batch_of_one(side, folder):
    path, _ = make(side, folder)
    for batch in side.loader(path, batch_size=1, **side.pipeline(squeeze=True)):
        if tuple(batch[1].shape) != (1,):
            raise Wrong("wrong samples", f"labels of the shape {tuple(batch[1].shape)}")


@fault("one wide and one tall photo in a data set", "error: 15 GB of memory: 64 x 5 photos as wide and as tall",
       "takes no memory for whole photos", apart=True)  # fmt: skip
def wide_and_tall(side, folder):
    photos = [np.full(shape, 99, np.uint8) for shape in [(10, 4000, 3), (4000, 10, 3), *[(32, 32, 3)] * 62]]
    side.write(Source(photos), folder / "a.beton", "jpg")
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (4 << 30),) * 2)
    images, labels = read_all(side, folder / "a.beton", batch_size=64, crop=True)
    if difference(images, np.full(images.shape, 99)) > 1 or len(labels) != 64:
        raise Wrong("wrong pixels")


@fault("Python 3.12 or later, whose distutils is gone, without setuptools", "error: `import ffcv` fails", "not needed",
       apart=True)  # fmt: skip
def no_distutils(side, folder):
    sys.modules["distutils"] = sys.modules["distutils.log"] = None
    path, photos = make(side, folder)
    compare(*read_all(side, path), photos)
