"""beton.ffcv beside stock FFCV 1.0.2: the same samples, labels, order, shapes and types; the same pixels where stock is
exact. What stock draws at random is given odds that leave nothing to chance.

Stock's operations are called by Python; with --slow the chains are compiled too, which takes it 5 s for each pipeline.
"""

import importlib

import numpy as np
import pytest
import torch
from torchvision import transforms as tv

from tests.support.loaders import within
from tests.support.photos import draw, draw_photos

pytest.importorskip("ffcv")
pytest.importorskip("beton.ffcv")

SIDES = ["ffcv", "beton.ffcv"]
MEAN, STD = np.array([125.3, 123.0, 113.9]), np.array([51.6, 50.8, 51.3])


class Side:
    """One of the two packages; names are looked up in the modules that users import them from."""

    MODULES = ["loader", "writer", "fields", "fields.decoders", "fields.bytes", "fields.json", "transforms", "reader"]

    def __init__(self, package: str):
        self._modules = [importlib.import_module(f"{package}.{name}") for name in self.MODULES]

    def __getattr__(self, name):
        return next(getattr(module, name) for module in self._modules if hasattr(module, name))


pytestmark = pytest.mark.usefixtures("uncompiled")
compiled_too = pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)], indirect=True)


@pytest.fixture
def compiled(request, uncompiled):
    """Whether stock compiles."""
    from ffcv.pipeline.compiler import Compiler

    Compiler.set_enabled(request.param)


def write(side: Side, path, mode: str, photos: list) -> str:
    """A data set with each kind of field; bytes and JSON differ in length."""
    fields = {
        "image": side.RGBImageField(write_mode=mode, jpeg_quality=95),
        "label": side.IntField(),
        "weight": side.FloatField(),
        "word": side.BytesField(),
        "meta": side.JSONField(),
        "mask": side.NDArrayField(np.dtype("<i2"), (3, 5)),
        "points": side.TorchTensorField(torch.float32, (2, 2)),
    }
    rng = np.random.default_rng(3)
    samples = [
        (
            photo,
            7 * i % 10,
            i / 3 - 1,
            rng.integers(0, 256, 1 + i % 5, np.uint8),
            {"number": i, "name": "\u00e9" * (i % 3)},
            rng.integers(-999, 999, (3, 5), np.int16),
            torch.from_numpy(rng.normal(size=(2, 2)).astype(np.float32)),
        )
        for i, photo in enumerate(photos)
    ]
    writer = side.DatasetWriter(str(path), fields, page_size=1 << 21, num_workers=1)
    within(60, lambda: writer.from_indexed_dataset(samples, chunksize=10))
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Data sets of both writers: noise of 16 x 16 stored as it is, and JPEG photos of many sizes."""
    folder = tmp_path_factory.mktemp("betons")
    noise = list(np.random.default_rng(5).integers(0, 256, (45, 16, 16, 3), np.uint8))
    ours, theirs = Side("beton.ffcv"), Side("ffcv")
    return {
        "by stock": write(theirs, folder / "stock.beton", "raw", noise),
        "by us": write(ours, folder / "ours.beton", "raw", noise),
        "jpeg": write(theirs, folder / "jpeg.beton", "jpg", draw_photos(20, 40, 90)),
        "square": write(theirs, folder / "square.beton", "jpg", [draw(i, 48, 48, noise=0) for i in range(20)]),
    }


def epochs(
    package: str, path: str, image=None, label=None, count: int = 1, only=("image", "label"), order="SEQUENTIAL", **how
):
    """Batches of the first epochs, copied: tuples of arrays or tensors. `order`: name or number of an OrderOption."""
    side = Side(package)
    order = side.OrderOption[order] if isinstance(order, str) else side.OrderOption(order)
    given = {"image": image and image(side), "label": label and label(side)}
    pipelines = {name: operations for name, operations in given.items() if operations}
    if only:
        pipelines |= dict.fromkeys(("weight", "word", "meta", "mask", "points"))
        pipelines |= {name: None for name in ("image", "label") if name not in only}
    how = {"batch_size": 8, "num_workers": 1, "order": order, "drop_last": False} | how
    loader = side.Loader(path, pipelines=pipelines, **how)
    return [[tuple(column.clone() for column in batch) for batch in loader] for _ in range(count)], loader


def both(path, *args, **how) -> tuple[list, list]:
    """The batches of stock and ours: the same numbers of them, of the same shapes, types and strides."""
    (theirs, one), (ours, two) = (within(120, lambda side=side: epochs(side, path, *args, **how)) for side in SIDES)
    assert len(one) == len(two)
    assert [len(epoch) for epoch in ours] == [len(epoch) for epoch in theirs]
    theirs, ours = (sum(epochs, []) for epochs in (theirs, ours))
    for batch, expected in zip(ours, theirs, strict=True):
        for column, wanted in zip(batch, expected, strict=True):
            assert (type(column), column.dtype, column.shape) == (type(wanted), wanted.dtype, wanted.shape)
            assert column.stride() == wanted.stride() or 1 in column.shape
    return theirs, ours


def equal(path, *args, **how) -> None:
    for expected, batch in zip(*both(path, *args, **how), strict=True):
        for wanted, column in zip(expected, batch, strict=True):
            torch.testing.assert_close(column, wanted, rtol=0, atol=0)


def imagenet(side, decoder):
    """The chain of ffcv-imagenet in the order that stock takes on a CPU: after ToTensor its NormalizeImage hangs."""
    normalize = side.NormalizeImage(255 * MEAN, STD, np.float16)
    return [decoder, side.RandomHorizontalFlip(1.0), normalize, side.ToTensor(), side.ToTorchImage()]


def cifar(side, *cutout):
    painted = [side.RandomHorizontalFlip(1.0), side.RandomTranslate(0), *cutout]
    moved = [side.ToTensor(), side.ToDevice(torch.device("cpu")), side.ToTorchImage(), side.Convert(torch.float16)]
    return [side.SimpleRGBImageDecoder(), *painted, *moved, tv.Normalize(MEAN.tolist(), STD.tolist())]


def squeezed(side):
    return [side.IntDecoder(), side.ToTensor(), side.Squeeze()]


def difference(theirs: list, ours: list) -> np.ndarray:
    """Absolute differences of the images, in grey levels."""
    return np.concatenate([(a[0].float() - b[0].float()).abs().ravel() for a, b in zip(theirs, ours, strict=True)])


@compiled_too
@pytest.mark.parametrize("file", ["by stock", "by us"])
def test_every_field_as_it_is_read_by_default(compiled, files, file):
    """But for bytes: stock leaves what lay there behind the end of each, and gives whole batches of them."""
    theirs, ours = (within(60, lambda side=side: epochs(side, files[file], only=()))[0][0] for side in SIDES)
    sizes = [1 + i % 5 for i in range(45)]
    for n, (expected, batch) in enumerate(zip(theirs, ours, strict=True)):
        for i, (wanted, column) in enumerate(zip(expected, batch, strict=True)):
            assert (column.dtype, column.shape[1:]) == (wanted.dtype, wanted.shape[1:])
            if i not in (3, 4):
                torch.testing.assert_close(column, wanted, rtol=0, atol=0)
        for row, column in enumerate(batch[3]):
            size = sizes[8 * n + row]
            assert column[:size].tolist() == expected[3][row, :size].tolist() and not column[size:].any()
        unpack = [Side(side).JSONField.unpack for side in SIDES]
        metas = [unpack[0](expected[4][: len(batch[0])]), unpack[1](batch[4])]
        assert metas[0] == metas[1] and metas[1][0]["number"] == 8 * n


@compiled_too
def test_the_chain_of_cifar(compiled, files):
    equal(files["by stock"], cifar, squeezed)
    equal(files["by stock"], lambda side: cifar(side, side.Cutout(16, (1, 2, 3))), squeezed)


@compiled_too
def test_the_chain_of_imagenet_on_pictures_of_the_right_size(compiled, files):
    equal(files["by us"], lambda side: imagenet(side, side.SimpleRGBImageDecoder()), squeezed)


@compiled_too
def test_crops_differ_by_stocks_filter_and_its_less_exact_decoding(compiled, files):
    for path, decoder in [
        (files["jpeg"], lambda side: side.CenterCropRGBImageDecoder((32, 32), 0.875)),
        (files["square"], lambda side: side.RandomResizedCropRGBImageDecoder((32, 32), (1, 1), (1, 1))),
    ]:
        found = difference(*both(path, lambda side, d=decoder: [d(side), side.ToTensor()], squeezed))  # noqa: B023
        assert found.mean() < 2 and np.quantile(found, 0.999) <= 10


TRANSFORMS = {
    "flip": lambda s: [s.RandomHorizontalFlip(1.0)],
    "no flip": lambda s: [s.RandomHorizontalFlip(0.0)],
    "translate": lambda s: [s.RandomTranslate(0, (9, 8, 7))],
    "cutout": lambda s: [s.Cutout(16, (9, 8, 7))],
    "brightness": lambda s: [s.RandomBrightness(0.0, 1.0)],
    "contrast": lambda s: [s.RandomContrast(0.0, 1.0)],
    "saturation": lambda s: [s.RandomSaturation(0.0, 1.0)],
    "no colours": lambda s: [s.RandomBrightness(0.9, 0.0), s.RandomContrast(0.9, 0.0), s.RandomSaturation(0.9, 0.0)],
    "poison": lambda s: [s.Poison(np.full((16, 16, 3), 40.5), np.full((16, 16), 0.25), [3, 11, 44])],
    "normalize": lambda s: [s.NormalizeImage(MEAN, STD, np.float32)],
    "normalize to float16": lambda s: [s.NormalizeImage(MEAN, STD, np.float16), s.View(np.float16)],
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_of_images(files, name):
    equal(
        files["by stock"],
        lambda side: [side.SimpleRGBImageDecoder(), *TRANSFORMS[name](side), side.ToTensor()],
        squeezed,
    )


TENSORS = {
    "ToTorchImage": lambda s: [s.ToTorchImage()],
    "ToTorchImage, contiguous": lambda s: [s.ToTorchImage(channels_last=False)],
    "Convert": lambda s: [s.ToTorchImage(), s.Convert(torch.float32)],
    "View": lambda s: [s.View(torch.int8)],
    "ModuleWrapper": lambda s: [s.ToTorchImage(), s.ModuleWrapper(tv.Grayscale(3))],
    "a module": lambda s: [s.ToTorchImage(), s.Convert(torch.float32), tv.CenterCrop(10), tv.Pad(2)],
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_transform_of_tensors(files, name):
    equal(files["by stock"], lambda side: [side.SimpleRGBImageDecoder(), side.ToTensor(), *TENSORS[name](side)])


LABELS = {
    "as they are": lambda s: [s.IntDecoder(), s.ToTensor()],
    "replaced": lambda s: [s.IntDecoder(), s.ReplaceLabel([2, 5, 17], 99), s.ToTensor(), s.Squeeze()],
    "squeezed": lambda s: [s.IntDecoder(), s.ToTensor(), s.ToDevice(torch.device("cpu")), s.Squeeze(1)],
}


@pytest.mark.parametrize("name", LABELS)
def test_a_transform_of_labels(files, name):
    equal(files["by stock"], None, LABELS[name], only=("label",), batch_size=9)


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [True], indirect=True)
@pytest.mark.parametrize("same", [True, False])
def test_mixup(compiled, files, same):
    """Compiled, since numba draws other shares than NumPy for a seed. Stock lets the compiler round sums as it likes
    (`fastmath`), and cuts off: here and there 38 becomes 39."""
    theirs, ours = both(
        files["by stock"],
        lambda s: [s.SimpleRGBImageDecoder(), s.ImageMixup(0.5, same), s.ToTensor()],
        lambda s: [s.IntDecoder(), s.LabelMixup(0.5, same), s.ToTensor(), s.MixupToOneHot(10)],
    )
    for (wanted, shares), (images, ours_shares) in zip(theirs, ours, strict=True):
        assert torch.equal(ours_shares, shares)
        apart = (images.int() - wanted.int()).abs()
        assert apart.max() <= 1 and (apart > 0).float().mean() < 0.01


def test_a_cutout_and_a_translation_of_stocks_kind(files):
    """They are drawn elsewhere: as many pixels are painted, and the others are those of the picture."""

    def chain(*operations):
        return lambda s: [s.SimpleRGBImageDecoder(), *[make(s) for make in operations], s.ToTensor()]

    path, fill = files["by stock"], torch.tensor([1, 2, 3])
    plain, _ = both(path, chain())
    for batches in both(path, chain(lambda s: s.Cutout(5, (1, 2, 3)))):
        for (image, *_), (picture, *_) in zip(batches, plain, strict=True):
            painted = (image == fill).all(-1)
            assert (painted.sum((1, 2)) == 25).all() and (image == picture)[~painted].all()
    moved = [set() for _ in SIDES]
    for batches, seen in zip(both(path, chain(lambda s: s.RandomTranslate(2, (1, 2, 3)))), moved, strict=True):
        for image, picture in zip(torch.cat([b[0] for b in batches]), torch.cat([b[0] for b in plain]), strict=True):
            padded = fill.to(torch.uint8).repeat(20, 20, 1)
            padded[2:18, 2:18] = picture
            seen |= {(y, x) for y in range(5) for x in range(5) if (image == padded[y : y + 16, x : x + 16]).all()}
    assert all(len(seen) > 8 for seen in moved)


def test_a_crop_of_pictures_as_an_operation(files):
    """Stock resizes by area, we with antialiasing; a crop of the whole of the same size leaves the picture alone."""
    whole = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
    equal(files["by stock"], lambda s: [s.SimpleRGBImageDecoder(), s.RandomResizedCrop(size=16, **whole), s.ToTensor()])


ORDERS = {
    "sequential": {},
    "random": {"order": "RANDOM", "seed": 11, "count": 3},
    "random, some": {"order": "RANDOM", "seed": 2, "indices": [3, 40, 7, 9, 9, 21, 30, 2, 1, 0]},
    "an array of indices": {"indices": np.arange(44, 3, -2)},
    "drop_last": {"drop_last": True, "batch_size": 11},
    "by number": {"order": 2, "seed": 1},
}


@pytest.mark.parametrize("name", ORDERS)
def test_the_order(files, name):
    equal(files["by us"], None, squeezed, only=("label",), **ORDERS[name])


def test_a_quasi_random_epoch_has_every_sample_once(files):
    how = {"order": "QUASI_RANDOM", "seed": 1, "only": ("label",), "count": 2}
    (one, again), _ = within(60, lambda: epochs("beton.ffcv", files["by stock"], None, squeezed, **how))
    orders = [torch.cat([batch[0] for batch in epoch]).tolist() for epoch in (one, again)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(7 * i % 10 for i in range(45))


def test_what_a_loader_and_a_reader_say_of_a_file(files):
    for path in (files["by stock"], files["by us"]):
        readers = [Side(side).Reader(path) for side in SIDES]
        names = [list(reader.handlers) for reader in readers]
        assert names[0] == names[1] == list(readers[1].field_names)
        assert readers[0].num_samples == readers[1].num_samples == 45
        assert readers[0].metadata.dtype == readers[1].metadata.dtype
        assert readers[0].metadata.tobytes() == readers[1].metadata.tobytes()
        assert readers[0].alloc_table.dtype == readers[1].alloc_table.dtype
        for name in names[0]:
            one, two = (reader.handlers[name] for reader in readers)
            assert type(one).__name__ in {kind.__name__ for kind in type(two).__mro__}  # stock says Bytes for JSON
            assert bytes(one.to_binary()) == bytes(two.to_binary())
            assert one.metadata_type == two.metadata_type
