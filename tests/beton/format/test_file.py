"""beton.open(path)[i]: samples one by one."""

import numpy as np
import pytest

import beton
from tests.support.betons import damage, flip_bits, write_source
from tests.support.photos import Source, draw_photos

PHOTOS, LABELS = draw_photos(7, 20, 60), [3, 0, 6, 1, 4, 2, 5]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.beton"
    write_source(Source(PHOTOS, labels=LABELS), path, "raw")
    return path


def test_a_sample_is_a_named_tuple_of_its_values(path):
    with beton.open(path) as file:
        assert len(file) == 7
        for i, sample in enumerate(file):
            assert sample._fields == ("image", "label") == tuple(file.fields)
            image, label = sample
            assert image is sample.image and label is sample.label
            assert (image.dtype, type(label)) == (np.uint8, int)
            np.testing.assert_array_equal(image, PHOTOS[i])
            assert label == LABELS[i]
        assert i == 6


def test_negative_indices_count_from_the_end(path):
    with beton.open(path) as file:
        for i in range(7):
            np.testing.assert_array_equal(file[i - 7].image, PHOTOS[i])
            assert file[i - 7].label == LABELS[i]
        assert file[np.int64(-1)].label == 5


@pytest.mark.parametrize("index", [7, -8, 10**9, -(10**20)])
def test_what_is_not_there_is_an_index_error_that_names_the_file(path, index):
    with beton.open(path) as file, pytest.raises(IndexError, match=f"sample {index} of {path} .* has 7 samples"):
        file[index]


def test_the_context_manager_closes_it(path):
    with beton.open(path) as file:
        assert file[0].label == 3
    with pytest.raises(ValueError, match="closed"):
        file[0]
    file.close()  # once more does no harm
    assert len(file) == 7 and file.labels.tolist() == LABELS  # the tables are in memory


def test_close_without_a_context_manager(path):
    file = beton.open(str(path))
    assert file[6].label == 5
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file[6]


def test_a_damaged_sample_is_named_and_the_others_are_read(path):
    damage(path, [3], flip_bits)
    with beton.open(path) as file:
        for index in (3, -4):
            with pytest.raises(beton.DamagedSample, match="sample 3 of .*its checksum differs") as caught:
                file[index]
            assert (caught.value.dataset, caught.value.sample, caught.value.field) == (str(path), 3, "image")
        np.testing.assert_array_equal(file[4].image, PHOTOS[4])
