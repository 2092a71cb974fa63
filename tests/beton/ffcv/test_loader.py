"""FFCV's loader on our engine: what it plans, columns of all kinds, what changes between epochs, what is refused."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from beton import UserError
from beton.ffcv import explain
from beton.ffcv.fields import BytesField, Field, FloatField, IntField, JSONField, NDArrayField, RGBImageField
from beton.ffcv.fields.base import ARG_TYPE
from beton.ffcv.fields.decoders import (
    CenterCropRGBImageDecoder,
    IntDecoder,
    RandomResizedCropRGBImageDecoder,
    SimpleRGBImageDecoder,
)
from beton.ffcv.loader import Loader, OrderOption
from beton.ffcv.pipeline import AllocationQuery, Compiler, Operation, PipelineSpec
from beton.ffcv.transforms import (
    Convert,
    Cutout,
    NormalizeImage,
    RandomHorizontalFlip,
    RandomTranslate,
    Squeeze,
    ToDevice,
    ToTensor,
    ToTorchImage,
)
from beton.ffcv.traversal_order.base import TraversalOrder
from beton.ffcv.writer import DatasetWriter
from tests.support.loaders import within

COUNT = 50
MEAN, STD = np.array([125.3, 122.9, 113.8]), np.array([51.6, 50.8, 51.3])
PHOTOS = np.random.default_rng(3).integers(0, 256, (COUNT, 24, 24, 3), np.uint8)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Pictures of noise, and a column of each kind."""
    path = str(tmp_path_factory.mktemp("betons") / "all.beton")
    fields = {"image": RGBImageField(), "label": IntField(), "size": FloatField(), "name": BytesField()}
    fields |= {"about": JSONField(), "box": NDArrayField(np.dtype("float32"), (2, 2))}
    samples = [
        (PHOTOS[i], i, i / 2, np.arange(i % 4, dtype=np.uint8), {"number": i}, np.full((2, 2), i, np.float32))
        for i in range(COUNT)
    ]
    DatasetWriter(path, fields, num_workers=1).from_indexed_dataset(samples)
    return path


def images(path, *pipeline, **how):
    """The batches of an epoch of images alone."""
    how = {"num_workers": 2, "seed": 5, "drop_last": False, **how}
    loader = Loader(path, 16, pipelines={**only("image"), "image": list(pipeline)}, **how)
    return [batch for (batch,) in loader]


def only(*names):
    return dict.fromkeys({"image", "label", "size", "name", "about", "box"} - set(names))


def test_columns_are_those_of_the_file_in_its_order(path):
    found = list(Loader(path, 20, num_workers=2, drop_last=False))
    assert [len(batch) for batch in found] == [6] * 3
    image, label, size, name, about, box = map(torch.cat, zip(*found, strict=True))
    assert torch.equal(image, torch.from_numpy(PHOTOS))
    assert label.dtype == torch.int64 and label.tolist() == [[i] for i in range(COUNT)]
    assert size.dtype == torch.float64 and size.tolist() == [[i / 2] for i in range(COUNT)]
    assert name[7].tolist() == [0, 1, 2] and name[4].tolist() == [0, 0, 0]  # zeros behind what is shorter
    assert JSONField.unpack(about) == [{"number": i} for i in range(COUNT)]
    assert box[9].tolist() == [[9, 9], [9, 9]]


def test_without_to_tensor_batches_are_arrays_and_none_leaves_a_field_out(path):
    (batch,) = images(path, SimpleRGBImageDecoder())[:1]
    assert isinstance(batch, np.ndarray) and np.array_equal(batch, PHOTOS[:16])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("on_arrays", [False, True])
def test_the_fused_pass_makes_what_the_operations_say(path, dtype, on_arrays):
    normalize = NormalizeImage(MEAN, STD, dtype)
    image = [ToTensor(), ToDevice("cpu"), ToTorchImage()]
    behind = [normalize, *image] if on_arrays else [*image, normalize]
    found = torch.cat(images(path, SimpleRGBImageDecoder(), *behind))
    expected = torch.from_numpy(((PHOTOS - MEAN) / STD).astype(dtype)).permute(0, 3, 1, 2)
    assert found.dtype == expected.dtype and found.is_contiguous(memory_format=torch.channels_last)
    if dtype == np.float16:
        assert torch.equal(found, expected)  # to the bit
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_convert_and_normalize_are_what_torch_makes_of_them(path):
    normalize = pytest.importorskip("torchvision").transforms.Normalize(MEAN.tolist(), STD.tolist())
    chain = [SimpleRGBImageDecoder(), RandomHorizontalFlip(), RandomTranslate(2), Cutout(4, (1.0, 2.0, 3.0))]
    plain = images(path, *chain, order=OrderOption.RANDOM)
    to_float = [ToTensor(), ToDevice("cpu"), ToTorchImage(), Convert(torch.float16), normalize]
    found = images(path, *chain, *to_float, order=OrderOption.RANDOM)
    for batch, pixels in zip(found, plain, strict=True):
        expected = normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2).half())
        assert torch.equal(batch, expected)


def test_explain_says_where_each_operation_runs(path, capfd, monkeypatch):
    class Own(Operation):
        def generate_code(self):
            return lambda images, _: images

        def declare_state_and_memory(self, previous_state):
            return previous_state, None

    monkeypatch.setenv("BETON_EXPLAIN", "1")
    pipelines = {**only("image", "label"), "image": [SimpleRGBImageDecoder(), RandomHorizontalFlip(), Own()]}
    loader = Loader(path, 10, num_workers=1, pipelines=pipelines)
    lines = [line.split()[:2] for line in explain(loader).splitlines()]
    assert lines[2:5] == [["fused", "SimpleRGBImageDecoder"], ["fused", "RandomHorizontalFlip"], ["compiled", "Own"]]
    assert explain(loader) in capfd.readouterr().err


def test_a_decoder_s_size_is_read_again_in_each_epoch_and_the_decoder_left_alone(path):
    decoder = CenterCropRGBImageDecoder((8, 8), 1.0)
    loader = Loader(path, 10, num_workers=1, pipelines={**only("image"), "image": [decoder, ToTensor()]})
    assert [batch.shape[1:] for (batch,) in loader][0] == (8, 8, 3)
    code = loader.code
    assert [batch.shape[1:] for (batch,) in loader][0] == (8, 8, 3) and loader.code is code
    decoder.output_size = (12, 16)
    assert [batch.shape[1:] for (batch,) in loader][0] == (12, 16, 3)
    assert getattr(decoder, "metadata", None) is None


def test_two_pipelines_of_one_field_draw_for_themselves(path):
    def crop():
        return [RandomResizedCropRGBImageDecoder((12, 12)), ToTensor()]

    (decoder, *transforms) = crop()
    specs = {**only("image"), "image": crop(), "again": PipelineSpec("image", decoder, transforms)}
    for how in (
        {"pipelines": specs},
        {"pipelines": {**specs, "again": crop()}, "custom_field_mapper": {"again": "image"}},
    ):
        (one, two), *_ = Loader(path, 10, num_workers=2, **how)
        assert one.shape == two.shape and not torch.equal(one, two)


def test_the_same_seed_makes_the_same_batches_whatever_the_threads(path):
    chain = RandomResizedCropRGBImageDecoder((12, 12)), RandomHorizontalFlip(), ToTensor()
    one, two, other = (
        torch.cat(images(path, *chain, order=OrderOption.RANDOM, num_workers=workers, seed=seed))
        for workers, seed in ((1, 5), (2, 5), (2, 6))
    )
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_leaving_an_epoch_early_ends_its_threads(path):
    loader = Loader(path, 4, num_workers=2, pipelines=only("label"))
    for _ in loader:
        break
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("beton-loader")]
    first, second = iter(loader), iter(loader)  # two at a time
    assert next(first)[0].tolist() == next(second)[0].tolist()
    first.close(), second.close()


class Backwards(TraversalOrder):
    def __init__(self, loader, step=1):
        super().__init__(loader)
        self.step = step

    def sample_order(self, epoch):
        return self.indices[:: -self.step]


def test_an_order_of_ones_own_and_a_filter_of_a_subset(path):
    how = {"num_workers": 1, "pipelines": {**only("label"), "label": [IntDecoder(), ToTensor(), Squeeze()]}}
    how["drop_last"] = False
    (batch,) = within(60, lambda: list(Loader(path, 50, order=Backwards, order_kwargs={"step": 10}, **how)))
    assert batch[0].tolist() == [49, 39, 29, 19, 9]
    loader = Loader(path, 2, indices=[5, 7, 9, 11], **how).filter("label", lambda label: label > 6)
    assert [batch[0].tolist() for batch in loader] == [[7, 9], [11]]


def test_too_few_samples_for_a_batch_are_said(path, capfd):
    loader = Loader(path, COUNT + 1, num_workers=1)
    assert len(loader) == 0 and list(loader) == [] and "no batches" in capfd.readouterr().err


WRONG = {
    "a decoder of another field": ({"pipelines": {"image": [IntDecoder()]}}, "IntDecoder.*'image'"),
    "an image decoder": ({"pipelines": {"label": [SimpleRGBImageDecoder()]}}, "SimpleRGBImageDecoder.*'label'"),
    "no such field": ({"pipelines": {"images": [ToTensor()]}}, "'images' is of no field"),
    "a sample that is not there": ({"indices": [COUNT]}, f"`indices` has {COUNT}"),
    "too large a square": ({"pipelines": {"image": [SimpleRGBImageDecoder(), Cutout(25)]}}, "Cutout.*'image'"),
    "an operation behind another pipeline's": ({"pipelines": {"x": PipelineSpec(ToTensor())}}, "'x' goes on from"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_refused_at_once_by_name(path, case):
    how, message = WRONG[case]
    with pytest.raises(UserError, match=message):
        Loader(path, 10, num_workers=1, **how)


# A field of the user's own


class Rows(Field):
    """Rows of four floats, as many as there are, and three bytes elsewhere."""

    metadata_type = np.dtype([("rows", "<u4"), ("ptr", "<u8"), ("more", "<u8", (2,))])

    def to_binary(self):
        return np.zeros(1, ARG_TYPE)[0]

    @staticmethod
    def from_binary(binary):
        return Rows()

    def encode(self, destination, value, malloc):
        destination["rows"] = len(value)
        destination["ptr"], memory = malloc(value.nbytes)
        memory[:] = value.reshape(-1).view(np.uint8)
        destination["more"][0, 1], memory = malloc(3)
        memory[:] = len(value)

    def get_decoder_class(self):
        return RowsDecoder


class RowsDecoder(Operation):
    def declare_state_and_memory(self, previous_state):
        shape = (int(self.metadata["rows"].max()), 4)
        state = replace(previous_state, jit_mode=True, shape=shape, dtype=np.dtype("f4"))
        return state, AllocationQuery(shape, np.dtype("f4"))

    def generate_code(self):
        read, my_range = self.memory_read, Compiler.get_iterator()

        def decode(indices, target, metadata, storage_state):
            for i in my_range(len(indices)):
                record = metadata[indices[i]]
                count = record["rows"]
                target[i] = read(record["more"][1], storage_state)[2] + 100
                target[i, :count] = read(record["ptr"], storage_state).view(np.float32).reshape(count, 4)
            return target[: len(indices)]

        return decode


def test_a_field_of_ones_own_with_several_pieces_of_memory(tmp_path):
    path, samples = str(tmp_path / "own.beton"), [(np.full((i % 5 + 1, 4), i, np.float32), i) for i in range(COUNT)]
    fields = {"rows": Rows(), "a_name_that_is_cut": IntField()}
    DatasetWriter(path, fields, num_workers=1).from_indexed_dataset(samples)
    with pytest.raises(ValueError, match="custom_fields"):
        Loader(path, 10)
    loader = Loader(path, 10, num_workers=2, custom_fields={"rows": Rows}, order=OrderOption.RANDOM)
    assert loader.reader.field_names == ["rows", "a_name_that_is_c"]
    assert len(loader.reader.alloc_table) == 2 * COUNT
    seen = []
    for rows, numbers in within(60, lambda: list(loader)):
        for of_it, number in zip(rows, numbers.reshape(-1).tolist(), strict=True):
            count = number % 5 + 1
            assert (of_it[:count] == number).all() and (of_it[count:] == count + 100).all()
            seen.append(number)
    assert sorted(seen) == list(range(COUNT))
