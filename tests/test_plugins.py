"""A field, a storage mode, a stage, a source and a pipeline from outside the package: one file and a name each."""

import sys
import textwrap

import numpy as np
import pytest
import torch

import beton
from beton.errors import UserError
from beton.format.fields import FIELDS
from beton.format.modes import MODES
from beton.loading.task import Task
from beton.sources import open_source
from beton.stages.parse import parse
from beton.writing.options import WriteOptions, make_fields
from beton.writing.writer import write
from pipelines import open_pipeline

FILES = {
    "weight": '''
        """weight: kilograms, in 32 bits."""
        from dataclasses import dataclass
        import numpy as np
        from beton.format.fields.base import Decoder, Encoded, Field

        @dataclass(frozen=True)
        class Weight(Field):
            type_names = {200: "weight"}
            record = np.dtype("<f4")

            def encode(self, value, choice=None):
                return Encoded((float(value),))

            def value(self, record, payload):
                return float(record)

            def decoder(self, column, mapped, stages, dtype, gpu):
                return WeightDecoder(column.records)

        class WeightDecoder(Decoder):
            dtype = np.dtype(np.float32)

            def __init__(self, weights):
                self.weights = weights

            def fill(self, worker, samples, keys, target):
                target[:] = self.weights[samples]

        FIELD = Weight
        ''',
    "negative": '''
        """negative: the pixels, inverted."""
        import numpy as np
        from beton.format.modes.base import Mode

        class Negative(Mode):
            name, code = "outside.negative", 100

            def encode(self, pixels, options):
                return 255 - pixels.reshape(-1)

            def decode(self, payload, height, width):
                if payload.size != 3 * height * width:
                    raise ValueError("it is damaged")
                return 255 - payload.reshape(height, width, 3)

        MODE = Negative()
        ''',
    "invert": '''
        """invert: the negative of an image."""
        from PIL.ImageOps import invert
        from beton.stages.base import Pixels

        class Invert(Pixels):
            def apply(self, images, keys):
                images[:] = 255 - images

            def reference(self):
                return invert

        STAGE = Invert
        ''',
    "grid": '''
        """grid: squares of one colour; the label is the number, the weight half of it."""
        import numpy as np

        class Grid:
            fields = {"image": "image", "label": "int", "weight": "outside.weight"}
            classes = None

            def __init__(self, count):
                self.count = count

            def __len__(self):
                return self.count

            def name(self, i):
                return f"square {i}"

            identity = name

            def read(self, i):
                return np.full((8, 8, 3), i, np.uint8), i, i / 2

        def SOURCE(data_dir, split, seed=0, count=None):
            return Grid(count)
        ''',
    "backwards": '''
        """backwards: the samples of an epoch in opposite order, one by one."""
        import torch
        import beton
        from beton.loading.base import Pipeline

        class Backwards(Pipeline):
            def open(self):
                self.file = beton.open(self.task.dataset)
                self.num_samples, self.classes = len(self.file), self.file.classes

            def read(self, epoch, samples, keys, start):
                for sample in samples[::-1][start:].tolist():
                    row = self.file[sample]
                    yield torch.from_numpy(row.image).permute(2, 0, 1)[None], torch.tensor([row.label])

            def release(self):
                self.file.close()

        PIPELINE = Backwards
        ''',
    "lacking": '''
        """lacking: a pipeline whose package is not installed."""
        from beton.loading.base import Pipeline

        class Lacking(Pipeline):
            needs = {"no_such_module": "its-package"}

        PIPELINE = Lacking
        ''',
}


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """The files above as the package `outside`, and its field and mode added."""
    (tmp_path / "outside").mkdir()
    for name, text in FILES.items():
        (tmp_path / "outside" / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(tmp_path))
    for plugins, name in ((FIELDS, "weight"), (MODES, "negative")):
        plugins.add(f"outside.{name}", plugins.get(f"outside.{name}"))
    yield tmp_path
    for plugins, name in ((FIELDS, "weight"), (MODES, "negative")):
        plugins.remove(f"outside.{name}")
    for name in [name for name in sys.modules if name.split(".")[0] == "outside"]:
        del sys.modules[name]


@pytest.fixture
def squares(outside):
    """A .beton of 20 squares: images in the outside mode, labels, weights."""
    source = open_source("outside.grid", None, "train", count=20)
    fields = make_fields(source.fields, {"write_mode": "outside.negative"})
    write(source, outside / "squares.beton", fields, WriteOptions(2), {"name": "grid"})
    return outside / "squares.beton"


def test_a_field_and_a_storage_mode_from_outside_are_written_read_and_loaded(squares):
    with beton.open(squares) as file:
        assert file.fields == {"image": "blocks_image", "label": "int", "weight": "weight"}
        assert (file[7].image == 7).all()
        assert (file[7].label, file[7].weight) == (7, 3.5)
        assert "outside.negative, 8 x 8" in file.describe(7)
    with beton.Loader(squares, 5, image="center(4, ratio=1)|flip", workers=2) as loader:
        batches = list(loader)
    assert sum(len(batch.label) for batch in batches) == 20
    for images, labels, weights in batches:
        assert torch.equal(images, labels.to(torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4))
        assert torch.equal(weights, labels / 2)


def test_damage_in_an_outside_mode_is_an_error_of_its_sample(squares):
    with beton.open(squares) as file:
        start = int(file.columns["image"].addresses[3])
    np.memmap(squares, np.uint8, "r+", start, 1)[0] ^= 1
    with beton.open(squares) as file, pytest.raises(beton.DamagedSample, match="sample 3 "):
        file[3]


@pytest.mark.parametrize("pipeline", ["beton", "torch"])
def test_a_stage_from_outside_is_known_by_its_dotted_name(outside, numbered, pipeline):
    dataset = str(numbered["folder" if pipeline == "torch" else "beton"])
    pictures = []
    for text in ("center(24)", "center(24)|outside.invert"):
        task = Task(dataset, 8, 1, {"image": text}, shuffle=False)
        with open_pipeline(pipeline, task) as opened:
            pictures.append(torch.cat([images for images, _ in opened.batches(0)]))
    assert torch.equal(pictures[1], 255 - pictures[0])


def test_a_pipeline_from_outside_has_the_order_of_all_others(squares):
    task = Task(str(squares), 1, 1, {"image": "center(8)"}, seed=3)
    with open_pipeline("outside.backwards", task) as opened, open_pipeline("beton", task) as ours:
        assert len(opened) == 20
        backwards = [int(labels) for _, labels in opened.batches(4)]
        assert backwards == [int(labels) for _, labels in ours.batches(4)][::-1]
        assert len(list(opened.batches(4, start=15))) == 5


def test_a_pipeline_whose_package_is_missing_names_it(outside, numbered):
    with pytest.raises(UserError, match="pip install its-package"):
        open_pipeline("outside.lacking", Task(str(numbered["beton"]), 8, 1, {"image": "center(8)"}))


def test_an_unknown_name_is_an_error_that_names_the_nearest(outside):
    with pytest.raises(UserError, match="unknown stage 'flop'.*did you mean 'flip'.*defines STAGE"):
        parse("center(8)|flop")
    with pytest.raises(UserError, match="there is no module 'outside.nothing'"):
        parse("center(8)|outside.nothing")
    with pytest.raises(UserError, match="defines no STAGE"):
        parse("center(8)|outside.grid")
