"""Where the time of an epoch goes: sleeps in one part are found there; a GPU's idle time, by fake events."""

import json
import time

import numpy as np
import pytest
import torch
from torch import nn

from beton.format.fields import _image_decoder
from beton.format.modes.jpg import Jpg
from beton.kernels import DECODE_WHOLE
from beton.loading import to_device as to_device_module
from beton.loading.base import Pipeline
from beton.loading.loader import Loader
from beton.loading.task import Task
from beton.loading.times import PARTS as LOADER_PARTS
from beton.stages.flip import Flip
from runtime.launch import Rank
from runtime.training import engine
from runtime.training.checkpoint import Position
from runtime.training.clock import PARTS, Compiling, CudaMarks, EpochClock
from runtime.training.precision import Precision
from tests.support.scripts import forked, options
from tests.support.training import RESNET, log_of

CPU = torch.device("cpu")
SLEEP = 0.005  # seconds an image


JITTER = 0.05  # seconds that a busy machine may add between two looks at its clock


class Sleep:
    """Sleeps for some images, and counts how long that really was."""

    def __init__(self):
        self.slept = 0.0

    def __call__(self, images: int) -> None:
        started = time.perf_counter()
        time.sleep(SLEEP * images)
        self.slept += time.perf_counter() - started


class Made(Pipeline):
    """24 images of 8 pixels in batches of 8; it says that it copies to a GPU."""

    on_gpu = True

    def open(self):
        self.num_samples, self.classes, self.sleep = 24, ["a", "b"], lambda images: None

    def read(self, epoch, samples, keys, start):
        for _ in range(3):
            self.sleep(8)
            yield torch.zeros(8, 3, 8, 8), torch.zeros(8, dtype=torch.int64)


def copy_of(sleep):
    """A to_device that copies on a CPU."""

    def to_device(batches, task, finish=None, arrived=None):
        for batch in batches:
            arrived()
            sleep(len(batch[1]))
            yield batch

    return to_device


class Sgd(torch.optim.SGD):
    sleep = staticmethod(lambda images: None)

    def step(self, closure=None):
        self.sleep(8)
        return super().step(closure)


class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.sleep = nn.Linear(3, 2), lambda images: None

    def forward(self, images):
        self.sleep(len(images))
        return self.head(images.float().mean((2, 3)))


@pytest.fixture(autouse=True)
def one_thread():
    """torch's threads wait for each other, which on a busy machine takes longer than all that is measured here."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train(pipeline, sleeps: dict) -> tuple[dict, float]:
    """facts of an epoch and the wall time of it, with `sleeps` in the model or the optimizer."""
    model = Slow()
    optimizer = Sgd(model.parameters(), lr=0.1)
    model.sleep = sleeps.get("compute", model.sleep)
    optimizer.sleep = sleeps.get("optimizer", optimizer.sleep)
    loss = nn.CrossEntropyLoss()
    precision = Precision.choose("none", CPU)
    recipe = engine.Recipe(
        model=model, network=model, optimizer=optimizer, eval_loss=loss, precision=precision, epochs=1,
        objective=lambda images, labels: loss(model(images), labels % 2), scaler=precision.scaler(),
        lrs=lambda epoch, count: np.full(count, 0.1), resolution=lambda epoch: 8,
    )  # fmt: skip
    started = time.perf_counter()
    facts = engine.train_epoch(recipe, engine.EpochSums(Rank(0, 1, CPU), pipeline, Position(0)))
    return facts, time.perf_counter() - started


def found_in(facts: dict, part: str) -> float:
    """Seconds of a part; what the first batch waits for its data and its copy counts as the start."""
    return facts[PARTS[part]] + (facts["first_batch_time"] if part in ("wait", "transfer") else 0.0)


@pytest.mark.parametrize("part", ["wait", "transfer", "compute", "optimizer"])
def test_five_milliseconds_an_image_are_found_in_the_part_that_has_them(part, monkeypatch):
    sleep = Sleep()
    copying = sleep if part == "transfer" else lambda images: None
    monkeypatch.setattr(to_device_module, "to_device", copy_of(lambda images: None))
    with Made(Task("made", 8, 1, {})) as pipeline:
        own = [found_in(train(pipeline, {})[0], part) for _ in range(2)][1]  # torch's first time is longer
        monkeypatch.setattr(to_device_module, "to_device", copy_of(copying))
        pipeline.sleep = sleep if part == "wait" else pipeline.sleep
        facts, wall = train(pipeline, {part: sleep})
    assert sleep.slept >= 24 * SLEEP
    assert found_in(facts, part) - own == pytest.approx(sleep.slept, rel=0.1, abs=JITTER)
    assert sum(facts[name] for name in PARTS.values()) == pytest.approx(wall, rel=0.02, abs=JITTER)


@pytest.mark.parametrize("part", ["decode", "augment"])
def test_five_milliseconds_an_image_are_found_in_the_part_of_the_loader(part, betons, monkeypatch):
    sleep, decode, crop_all, apply = Sleep(), Jpg.decode, _image_decoder.crop_all, Flip.apply

    def slow_decode(mode, payload, height, width):
        sleep(1)
        started = time.perf_counter()
        made = decode(mode, payload, height, width)
        sleep.slept += time.perf_counter() - started  # it takes time itself
        return made

    def no_jpegs(scratch, file, records, *rest):
        return (DECODE_WHOLE, 0) if len(records) > 1 else crop_all(scratch, file, records, *rest)

    def slow_flip(stage, images, keys):
        sleep(len(images))
        apply(stage, images, keys)

    if part == "decode":
        monkeypatch.setattr(Jpg, "decode", slow_decode)
        monkeypatch.setattr(_image_decoder, "crop_all", no_jpegs)
    else:
        monkeypatch.setattr(Flip, "apply", slow_flip)
    # A flip behind a stage that is no mirror is not a part of the crop
    stages = "rrc(32)|gray(p=0)|flip|normalize"
    with Loader(betons["train"], 24, workers=1, image=stages, timed=True) as loader:
        facts, wall = train(loader, {})
        assert loader.times.samples == 120
    found = facts["loader_seconds_per_image"]
    assert tuple(found) == LOADER_PARTS
    assert found[part] * 120 == pytest.approx(sleep.slept, rel=0.1, abs=JITTER)
    assert sum(found.values()) * 120 <= wall  # one thread
    assert facts["wait_time"] + facts["first_batch_time"] > 0.7 * sleep.slept
    assert sum(facts[name] for name in PARTS.values()) == pytest.approx(wall, rel=0.02, abs=JITTER)


def test_without_timed_nothing_is_counted(betons):
    with Loader(betons["train"], 24, workers=1, image="rrc(32)|normalize") as loader:
        assert sum(len(labels) for _, labels in loader.batches(0)) == 120
        assert loader.times is None


class Gpu:
    """A host that runs ahead of a GPU, on one time line in milliseconds."""

    def __init__(self):
        self.host = self.free = 0.0

    def run(self, duration):
        self.free = max(self.host, self.free) + duration

    def wait_for(self, copied):
        self.free = max(self.host, self.free, copied)

    def event(self):
        gpu = self

        class Event:
            def record(self):
                self.at = max(gpu.host, gpu.free)

            def query(self):
                return self.at <= gpu.host

            def elapsed_time(self, other):
                assert other.at >= self.at
                return other.at - self.at

        return Event()


@pytest.mark.parametrize(("loading", "wait", "transfer"), [(60, 10, 0), (40, 0, 0), (40, 0, 20)])
def test_on_a_gpu_only_what_it_waited_counts(loading, wait, transfer):
    """Steps of 50 ms: with 60 ms of loading it waits 10 of 60. The host, which waits for no step, would tell 60.

    `transfer`: how much later than the GPU is free a batch's copy has ended.
    """
    gpu, steps, made = Gpu(), 200, []

    def event():
        made.append(gpu.event())
        return made[-1]

    clock = EpochClock(CPU, marks=CudaMarks(event))

    def host_batches():
        for number in range(steps):
            gpu.host = max(gpu.host, loading * (number + 1.0))  # when the loader has it
            yield torch.zeros(1), torch.zeros(1)

    def copied(batches):
        for batch in batches:
            clock.arrived()
            gpu.wait_for(max(gpu.host, gpu.free) + transfer)
            yield batch

    for _ in clock.watch(copied(host_batches())):
        gpu.run(40)
        clock.mark("compute")
        gpu.run(10)
        clock.mark("optimizer")
    gpu.host = max(gpu.host, gpu.free)
    clock.stop()
    seconds = clock._marks.seconds
    assert seconds["compute"] == pytest.approx(0.040 * steps) and seconds["optimizer"] == pytest.approx(0.010 * steps)
    assert seconds["wait"] == pytest.approx(wait / 1e3 * (steps - 1))
    assert seconds["transfer"] == pytest.approx(transfer / 1e3 * (steps - 1))
    assert seconds["start"] == pytest.approx((loading + transfer) / 1e3)
    assert sum(seconds.values()) == pytest.approx(gpu.free / 1e3)
    if loading == 60:  # the host does not run ahead of the GPU: events have passed and are used again
        assert len(made) < 100


def test_compiling_is_taken_from_the_part_in_which_it_happens(monkeypatch):
    from runtime.training import clock as module

    compiling, now = Compiling(), [0.0]
    monkeypatch.setattr(module, "_compiling", compiling)
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    clock = EpochClock(CPU)
    compiling.begin()
    now[0] = 2.0
    compiling.begin()  # within the first: counted once
    now[0] = 3.0
    compiling.end()
    compiling.end()
    now[0] = 4.0
    clock.mark("compute")
    clock.stop()
    facts = clock.facts()
    assert (facts["compile_time"], facts["compute_time"], facts["train_time"]) == (3.0, 1.0, 4.0)


def test_torch_tells_when_it_compiles():
    compiling = Compiling()
    import torch._dynamo

    compiling.watch()
    before = compiling.seconds
    torch.compile(lambda x: x + 1, backend="eager")(torch.zeros(2))
    assert compiling.seconds > before


def test_a_run_ends_with_what_limits_it_and_writes_a_trace(betons, tmp_path):
    """Twice 15 batches, of which ten are traced."""
    more = {"data.train_dataset": betons["train"], "data.val_dataset": betons["val"], "logging.folder": tmp_path}
    more |= {"training.trace": tmp_path / "trace.json", "data.timed": 1, "training.epochs": 2, "training.resume": None}
    done = forked("train_imagenet.py", *options(RESNET | more))
    assert done.returncode == 0, done.stderr
    assert " limit" in done.stdout.splitlines()[-1] and "of the epoch" in done.stdout.splitlines()[-1]
    for line in log_of(tmp_path / "run"):
        assert sum(line[name] for name in PARTS.values()) == pytest.approx(line["train_time"], rel=0.02, abs=JITTER)
        assert line["train_time"] + line["val_time"] <= line["epoch_time"]
        assert tuple(line["loader_seconds_per_image"]) == LOADER_PARTS
    events = [event.get("name") for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]]
    assert events.count("waiting for data") >= 10 and "aten::convolution" in events
