"""The two sides of the table of faults behind one face: this toolkit, and stock FFCV 1.0.2 without a line of ours.

A scenario is written once and given the side to take. Both sides have
- write(source, path, ...): a data set of a source (beton/sources); stock gets photo files as Pillow opens them
- write_folder(folder, path): a data set of class folders; returns what was printed
- loader(path, ...): an iterable of batches, whose `pixels` and `labels` are arrays of their own or views, as they come
- samples(path, indices): the labels of some samples
- settings(text, argv): the value of data.num_workers, data.in_memory and lr.lr, from a YAML file and a command line
- save(weights, path), load(path): weights of a model
Imports are within: the stock side is never imported by an ordinary test.
"""

import contextlib
import io
import random
import sys
from unittest import mock

import numpy as np


def declare():
    """A fastargs configuration such as ffcv-imagenet's."""
    from fastargs import Config, Param, Section

    config = Config()
    Section("data", "data", config_descriptor=config).params(
        num_workers=Param(int, "workers", default=4), in_memory=Param(bool, "in memory", default=True)
    )
    Section("lr", "rate", config_descriptor=config).params(lr=Param(float, "rate", default=0.5))
    return config


class Ours:
    """This toolkit: through the command line where there is one, else by the functions behind it."""

    name = "ours"

    def write(self, source, path, mode="raw", workers=2, resume=False):
        from tests.support.betons import write_source

        write_source(source, path, mode, num_workers=workers, chunk_size=5, resume=resume)

    def write_folder(self, folder, path, **cfg):
        from beton.errors import UserError
        from tests.support.betons import write_cli

        done = write_cli(path, folder, **cfg)
        *_, last = ["", *done.stderr.splitlines()]  # on a slow machine a bar comes first
        if done.returncode == 2 and last.startswith("error: "):
            raise UserError(*last.removeprefix("error: ").split("; ", 1))
        assert done.returncode == 0, done.stderr
        return done.stdout

    def loader(
        self, path, batch_size=8, workers=1, shuffle=False, drop_last=False, augment=False, epoch=0,
        start=0, crop=False, **more,
    ):  # fmt: skip
        """`crop`: stock has decoders with a crop and one without; here there is always one."""
        from pipelines import open_pipeline
        from tests.support.loaders import task

        stages = more.pop("stages", "rrc(32, scale=(0.25, 1))|flip" if augment else "center(32, ratio=1)")
        given = {"batch_size": batch_size, "workers": workers, "shuffle": shuffle, "drop_last": drop_last}
        opened = open_pipeline("beton", task(path, stages=stages, **given, **more))
        opened.epoch = epoch
        return opened.batches(epoch, start) if start else opened

    def pipeline(self, size=32, wrong_order=False, squeeze=False):
        """Stages as loader() takes them, for images of `size` pixels."""
        return {"stages": f"center({size}, ratio=1)" + "|normalize|flip" * wrong_order}

    def again(self, loader):
        """A loader that begins with the same epoch."""
        from pipelines import open_pipeline

        return open_pipeline("beton", loader.task)

    def default_loader(self, path):
        return self.loader(path)

    def epochs_of_two_scales(self, path, first, second):
        """The images of two epochs; the crop's scale is another in the second."""
        stages = [f"rrc(32, scale={scale}, ratio=(1.0, 1.0))" for scale in (first, second)]
        return [
            np.concatenate([self.pixels(batch) for batch in self.loader(path, stages=one, epoch=epoch)])
            for epoch, one in enumerate(stages)
        ]

    def evaluation(self, path, batch_size):
        from types import SimpleNamespace

        import torch

        from runtime.training.data import Data

        data = {"train_dataset": str(path), "val_dataset": str(path), "num_workers": 1, "in_memory": 1}
        data |= {"loader": "beton", "on_error": "raise", "verify": 0, "val_stages": "center({res}, ratio={ratio})"}
        data |= {"plugins": None, "timed": 0, "cache": None, "cache_gb": None}
        settings = SimpleNamespace(
            data=SimpleNamespace(**data),
            training=SimpleNamespace(batch_size=batch_size, seed=0, repeats=1),
            validation=SimpleNamespace(batch_size=batch_size, resolution=32, crop_ratio=1),
            logging=SimpleNamespace(worst=0, predictions=0),
        )
        rank = SimpleNamespace(rank=0, world_size=1, device=torch.device("cpu"))
        return Data(settings, rank, SimpleNamespace(dtype=None)).validation()

    def pixels(self, batch):
        return batch[0].permute(0, 2, 3, 1).numpy()

    def labels(self, batch):
        return batch[1].numpy()

    def samples(self, path, indices):
        import beton

        with beton.open(path) as file:
            return [file[index].label for index in indices]

    def order_of_ranks(self, path, ranks, shuffle=False, in_memory=True):
        """The samples that each rank reads in an epoch."""
        from tests.support.loaders import labels_of

        return [
            labels_of(self.loader(path, rank=rank, world_size=ranks, shuffle=shuffle, in_memory=in_memory))
            for rank in range(ranks)
        ]

    @contextlib.contextmanager
    def failing_stage(self):
        """A loader(path) within has a stage that raises ZeroDivisionError."""
        from beton.stages.flip import Flip

        with mock.patch.object(Flip, "mirrors", lambda *_: 1 / 0):
            yield {"stages": "center(32, ratio=1)|flip"}

    def settings(self, text, argv, folder):
        from runtime.config import parse

        (folder / "a.yaml").write_text(text)
        found = parse(declare(), ["--config-file", str(folder / "a.yaml"), *argv])
        return found.data.num_workers, found.data.in_memory, found.lr.lr

    def save(self, weights, path):
        from runtime.training import checkpoint

        checkpoint.save(weights, path)

    def load(self, path):
        from runtime.training import checkpoint

        return checkpoint.load(path)


class Stock:
    """FFCV 1.0.2 and, for settings and weights, what ffcv-imagenet uses: fastargs and torch.save."""

    name = "stock"

    def write(self, source, path, mode="raw", workers=2, resume=False):
        from ffcv.fields import IntField, RGBImageField
        from ffcv.writer import DatasetWriter

        fields = {"image": RGBImageField(write_mode=mode), "label": IntField()}
        np.random.seed(0)
        DatasetWriter(str(path), fields, num_workers=workers).from_indexed_dataset(_Dataset(source), chunksize=5)

    def write_folder(self, folder, path, write_mode="raw"):
        from ffcv.fields import IntField, RGBImageField
        from ffcv.writer import DatasetWriter
        from torchvision.datasets import ImageFolder

        out = io.StringIO()
        fields = {"image": RGBImageField(write_mode=write_mode), "label": IntField()}
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            DatasetWriter(str(path), fields, num_workers=2).from_indexed_dataset(ImageFolder(folder))
        return out.getvalue()

    def loader(
        self, path, batch_size=8, workers=1, shuffle=False, drop_last=False, augment=False, epoch=0,
        in_memory=True, seed=0, start=0, verify=False, crop=False, operations=None, **more,
    ):  # fmt: skip
        """`start` and `verify` have nothing to go to."""
        from ffcv.fields.decoders import IntDecoder
        from ffcv.loader import Loader, OrderOption
        from ffcv.transforms import ToTensor

        random.seed(seed)
        np.random.seed(seed)
        pipelines = {"image": operations or self.operations(augment, crop), "label": [IntDecoder(), ToTensor()]}
        pipelines = more.pop("pipelines", pipelines)
        order = OrderOption.RANDOM if shuffle else OrderOption.SEQUENTIAL
        if shuffle and not in_memory:
            order = OrderOption.QUASI_RANDOM
        loader = Loader(
            str(path), batch_size, workers, in_memory, order, seed=seed, drop_last=drop_last, pipelines=pipelines,
            **more,
        )  # fmt: skip
        loader.next_epoch = epoch
        return loader

    def operations(self, augment=False, crop=False):
        """FFCV's operations for the images."""
        from ffcv.fields import decoders
        from ffcv.transforms import RandomHorizontalFlip, ToTensor

        if augment:
            rrc = decoders.RandomResizedCropRGBImageDecoder((32, 32), (0.25, 1))
            return [rrc, RandomHorizontalFlip(), ToTensor()]
        return [
            decoders.CenterCropRGBImageDecoder((32, 32), 1) if crop else decoders.SimpleRGBImageDecoder(),
            ToTensor(),
        ]

    def pipeline(self, size=None, wrong_order=False, squeeze=False):
        """Pipelines as loader() takes them, for images of `size` pixels or as they are: lists."""
        from ffcv.fields.decoders import CenterCropRGBImageDecoder, IntDecoder
        from ffcv.transforms import NormalizeImage, Squeeze, ToTensor

        image, label = self.operations(), [IntDecoder(), ToTensor()]
        if size is not None:
            image[0] = CenterCropRGBImageDecoder((size, size), 1)
        if wrong_order:
            image.append(NormalizeImage(np.zeros(3), np.ones(3), np.float32))
        if squeeze:
            label.append(Squeeze())
        return {"pipelines": {"image": image, "label": label}}

    def again(self, loader):
        loader.next_epoch = 0
        return loader

    def default_loader(self, path):
        """All fields as FFCV decodes them by default."""
        from ffcv.loader import Loader

        return Loader(str(path), 8, num_workers=1)

    def epochs_of_two_scales(self, path, first, second):
        """The images of two epochs; the crop's scale is another in the second."""
        operations = self.operations(augment=True)
        crop = operations[0]
        crop.scale = first
        loader = self.loader(path, operations=[crop, operations[2]])
        images = []
        for scale in (first, second):
            crop.scale = scale
            images.append(np.concatenate([self.pixels(batch).copy() for batch in loader]))
        return images

    def evaluation(self, path, batch_size):
        from ffcv.loader import Loader

        pipelines = {"image": self.operations()}
        return Loader(str(path), batch_size=batch_size, num_workers=1, pipelines=pipelines)

    def pixels(self, batch):
        return batch[0].numpy()

    def labels(self, batch):
        return batch[1].numpy()[:, 0]

    def samples(self, path, indices):
        return [int(label) for batch in self.loader(path, crop=True, indices=indices) for label in self.labels(batch)]

    def order_of_ranks(self, path, ranks, shuffle=False, in_memory=True):
        """FFCV asks torch how many ranks there are, so it is faked."""
        import torch.distributed as dist
        from torch.testing._internal.distributed.fake_pg import FakeStore

        orders = []
        for rank in range(ranks):
            dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=ranks)
            loader = self.loader(path, shuffle=shuffle, in_memory=in_memory, distributed=True)
            orders.append(loader.next_traversal_order().tolist())
            dist.destroy_process_group()
        return orders

    @contextlib.contextmanager
    def failing_stage(self):
        from dataclasses import replace

        from ffcv.pipeline.operation import Operation

        class Failing(Operation):
            def generate_code(self):
                def fail(images, _):
                    raise ZeroDivisionError

                return fail

            def declare_state_and_memory(self, previous_state):
                return replace(previous_state, jit_mode=False), None

        yield {"operations": [*self.operations(), Failing()]}

    def settings(self, text, argv, folder):
        """As ffcv-imagenet's make_config."""
        import argparse

        (folder / "a.yaml").write_text(text)
        config, parser = declare(), argparse.ArgumentParser()
        with mock.patch.object(sys, "argv", ["train.py", "--config-file", str(folder / "a.yaml"), *argv]):
            config.augment_argparse(parser)
            config.collect_argparse_args(parser)
            config.validate(mode="stderr")
        return config["data.num_workers"], config["data.in_memory"], config["lr.lr"]

    def save(self, weights, path):
        import torch

        torch.save(weights, path)

    def load(self, path):
        import torch

        return torch.load(path)


class DropIn(Stock):
    """The very code of the stock side, in a process where `import ffcv` is beton.ffcv."""

    name = "dropin"

    def __init__(self):
        from beton.ffcv.launch import install

        install()


class _Dataset:
    """A source as FFCV's writer wants it."""

    def __init__(self, source):
        self._source = source

    def __len__(self):
        return len(self._source)

    def __getitem__(self, index):
        from PIL import Image

        photo, label = self._source.read(index)
        if isinstance(photo, bytes):
            photo = Image.open(io.BytesIO(photo))
        return photo, label


SIDES = {"ours": Ours, "stock": Stock, "dropin": DropIn}
