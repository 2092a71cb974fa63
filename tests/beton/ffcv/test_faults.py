"""Rows of the table of faults (tests/support/faults) again, by FFCV's own names: the scenarios of the stock side, word
for word, with beton.ffcv behind `import ffcv`. Stock fails each of them (tests/faults, --slow).
"""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from beton.errors import UserError
from tests.support.faults import HEALTHY, named
from tests.support.faults.apart import play_apart
from tests.support.faults.table import Outcome
from tests.support.loaders import within
from tests.support.scripts import Forked

pytest.importorskip("beton.ffcv")

# The words of each row's error: None, those of the table; none, the right result
ROWS = {
    "exception_in_the_source": ("dataset[3]", "KeyError"),
    "photo_truncated": ("dataset[3]",),
    "float_pixels": ("dataset[3]", "float32"),
    "long_photo": ("dataset[3]", "65535"),
    "photo_larger_than_a_page": None,
    "label_of_no_class": ("dataset[3]", "1.5"),
    "no_photos": None,
    "disk_full": None,
    "same_seed": None,
    "process_killed": None,
    "ctrl_c": None,
    "sigterm": None,
    "killed_over_an_older_file": None,
    "truncated_in_the_photos": None,
    "other_version": None,
    "table_address_zero": None,
    "metadata_zero": None,
    "address_beyond_the_file": None,
    "jpeg_zero": None,
    "jpeg_half": None,
    "truncated_while_read": None,
    "truncated_while_read_from_disk": None,
    "index_out_of_range": ("1000000", "20 samples"),
    "more_workers_than_cores": None,
    "torch_threads": None,
    "all_batches_kept": None,
    "batch_before": None,
    "epoch_left": None,
    "failing_stage": ("ZeroDivisionError", "Failing of the pipeline 'image'", "samples 0, 1, 2", "a.beton"),
    "same_seeds": None,
    "quasi_random_ranks": None,
    "same_pipeline_twice": None,
    "normalize_in_a_wrong_place": (),
    "scale_changed": None,
    "batch_of_one": None,
    "wide_and_tall": None,
    "no_distutils": None,
}


def test_nothing_is_wrong_where_there_is_no_fault(tmp_path):
    assert play_apart(HEALTHY, "dropin", tmp_path) == Outcome("right")


@pytest.mark.parametrize("name", ROWS)
def test_a_row(name, tmp_path):
    fault = named(name)
    if ROWS[name] is not None:
        fault = replace(fault, words=ROWS[name])
    outcome = play_apart(fault, "dropin", tmp_path)
    assert fault.passes(outcome), outcome


# What only users' own operations and fields can do


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """60 pictures of noise, and their numbers."""
    from beton.ffcv.fields import IntField, RGBImageField
    from beton.ffcv.writer import DatasetWriter

    path = tmp_path_factory.mktemp("betons") / "noise.beton"
    noise = np.random.default_rng(5).integers(0, 256, (60, 16, 16, 3), np.uint8)
    fields = {"image": RGBImageField(write_mode="raw"), "label": IntField()}
    within(60, lambda: DatasetWriter(path, fields, num_workers=1).from_indexed_dataset([*zip(noise, range(60))]))  # noqa: B905
    return path


def operation(function, jit=True, memory=True):
    """A user's operation: function(images, target)."""
    from beton.ffcv.pipeline.allocation_query import AllocationQuery
    from beton.ffcv.pipeline.operation import Operation

    class Own(Operation):
        def generate_code(self):
            return function

        def declare_state_and_memory(self, previous_state):
            query = AllocationQuery(previous_state.shape, previous_state.dtype) if memory else None
            return replace(previous_state, jit_mode=jit), query

    return Own()


def noisy(images, target):
    for i in range(images.shape[0]):
        target[i] = images[i] // 2 + np.random.randint(0, 100)
    return target


def fails_compiled(images, target):
    if images.shape[0]:
        raise ValueError("a fault of mine")
    return target


def fails_by_python(images, target):
    return {}["nothing"]


def loader(path, *operations, workers=2, **how):
    from beton.ffcv.fields.decoders import SimpleRGBImageDecoder
    from beton.ffcv.loader import Loader
    from beton.ffcv.transforms import ToTensor

    pipeline = [SimpleRGBImageDecoder(), *operations, ToTensor()]
    return Loader(path, 8, num_workers=workers, **{"pipelines": {"image": pipeline, "label": None}, **how})


@pytest.mark.parametrize(
    ("function", "jit", "kind", "message"),
    [(fails_compiled, True, "ValueError", "a fault of mine"), (fails_by_python, False, "KeyError", "nothing")],
)
def test_an_exception_in_an_operation_names_it_and_the_samples(path, function, jit, kind, message):
    def run():
        for _ in loader(path, operation(function, jit)):
            pass

    with pytest.raises(Exception, match=message) as caught:
        within(60, run)
    told = str(caught.value)
    assert all(word in told for word in ("Own of the pipeline 'image'", "samples 0, 1, 2", "noise.beton")), told
    assert type(caught.value).__mro__[1].__name__ == type(caught.value).__name__ == kind


def test_an_exception_in_a_module_behind_the_tensors_is_raised(path):
    class Broken(torch.nn.Module):
        def forward(self, images):
            raise ZeroDivisionError("in my module")

    from beton.ffcv.fields.decoders import SimpleRGBImageDecoder
    from beton.ffcv.transforms import ToTensor

    pipelines = {"image": [SimpleRGBImageDecoder(), ToTensor(), Broken()]}
    with pytest.raises(Exception, match="in my module"):
        within(60, lambda: list(loader(path, pipelines=pipelines)))


def test_batches_of_a_users_operation_are_not_written_over(path):
    batches = loader(path, operation(noisy))
    held, copies = [], []
    for (images,) in batches:
        held.append(images)
        copies.append(images.clone())
    assert all(torch.equal(one, copy) for one, copy in zip(held, copies, strict=True))


def test_draws_of_a_users_operation_follow_seed_and_epoch_alone(path):
    def epochs(seed, workers):
        batches = loader(path, operation(noisy), workers=workers, seed=seed)
        return [torch.cat([images.clone() for (images,) in batches]) for _ in range(2)]

    one, again, other = (within(60, lambda k=k: epochs(*k)) for k in [(4, 1), (4, 2), (5, 2)])
    assert torch.equal(one[0], again[0]) and torch.equal(one[1], again[1])
    assert not torch.equal(one[0], one[1]) and not torch.equal(one[0], other[0])


def test_pipelines_stay_as_they_were_given(path):
    from beton.ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
    from beton.ffcv.transforms import RandomHorizontalFlip, ToDevice, ToTensor

    image = [SimpleRGBImageDecoder(), RandomHorizontalFlip(1.0), ToTensor(), ToDevice("cpu")]
    label = [IntDecoder(), ToTensor()]
    before = [*image], [*label]
    first, second = (
        within(60, lambda: [image.clone() for image, _ in loader(path, pipelines={"image": image, "label": label})])
        for _ in range(2)
    )
    assert all(map(torch.equal, first, second))
    assert (image, label) == before and image[0].metadata is None


def untypable(images, target):
    return images.no_such_thing()


def refused():
    from beton.ffcv.fields.decoders import IntDecoder, NDArrayDecoder, SimpleRGBImageDecoder
    from beton.ffcv.transforms import ToDevice, ToTensor

    own = operation(untypable)
    yield {"picture": [SimpleRGBImageDecoder()]}, ["picture", "image", "label"]
    yield {"image": [IntDecoder(), ToTensor()]}, ["image", "IntDecoder"]
    yield {"label": [NDArrayDecoder(), ToTensor()]}, ["label", "NDArrayDecoder"]
    yield {"image": [SimpleRGBImageDecoder(), own, ToTensor()]}, ["image", "Own", "numba"]
    yield {"image": [SimpleRGBImageDecoder(), ToTensor(), ToDevice("meta"), operation(noisy)]}, ["image", "Own"]


@pytest.mark.parametrize("case", range(5))
def test_what_cannot_be_taken_over_is_refused_by_name(path, case):
    pipelines, words = [*refused()][case]
    with pytest.raises(UserError) as caught:
        within(60, lambda: list(loader(path, pipelines=pipelines)))
    assert all(word in str(caught.value) for word in words), caught.value


def cut_under_a_decoder(path):
    from beton.ffcv.fields import BytesField
    from beton.ffcv.fields.decoders import BytesDecoder
    from beton.ffcv.loader import Loader

    class Own(BytesField):
        pass

    class OwnDecoder(BytesDecoder):
        def generate_code(self):
            return super().generate_code()

    loader = Loader(path, 4, num_workers=1, custom_fields={"own": Own}, pipelines={"own": [OwnDecoder()]})
    os.truncate(path, 4096)
    with pytest.raises(UserError, match="truncated while it was in use"):
        list(loader)


def test_a_file_truncated_under_a_decoder_of_ones_own(tmp_path):
    """No field of the library's has anything in it but records."""
    from beton.ffcv.fields import BytesField
    from beton.ffcv.writer import DatasetWriter

    own = type("Own", (BytesField,), {})
    samples = [(np.full(9000, i, np.uint8),) for i in range(40)]
    DatasetWriter(tmp_path / "a.beton", {"own": own()}, num_workers=1).from_indexed_dataset(samples)
    process = Forked(tmp_path / "log", cut_under_a_decoder, tmp_path / "a.beton")
    assert process.end() == 0, process.errors


def test_a_field_of_ones_own_that_fails_ends_the_write(tmp_path):
    from beton.ffcv.fields import IntField
    from beton.ffcv.writer import DatasetWriter

    class Odd(IntField):
        def encode(self, destination, field, malloc):
            if field == 7:
                raise ArithmeticError("seven")
            super().encode(destination, field, malloc)

    writer = DatasetWriter(tmp_path / "a.beton", {"number": Odd()}, num_workers=2)
    with pytest.raises(Exception, match=r"dataset\[7\] \(ArithmeticError: seven"):
        within(60, lambda: writer.from_indexed_dataset([(i,) for i in range(20)]))
    assert not list(tmp_path.iterdir())
