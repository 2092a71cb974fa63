"""DatasetWriter.from_webdataset: tars through a pipeline of WebDataset's operations."""

import io
import json
import sys
import tarfile
from itertools import islice

import numpy as np
import pytest

from beton.errors import UserError
from beton.ffcv.fields import BytesField, IntField
from beton.ffcv.loader import Loader
from beton.ffcv.writer import DatasetWriter
from tests.support.loaders import within

FIELDS = {"number": IntField(), "text": BytesField()}


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    """Three tars: 40 samples, none, and 30, whose numbers go on; the files of a sample are in no fixed order."""
    folder, numbers = tmp_path_factory.mktemp("tars"), iter(range(70))
    for shard, count in enumerate((40, 0, 30)):
        with tarfile.open(folder / f"a-{shard:03d}.tar", "w") as tar:
            for number in islice(numbers, count):
                files = {"cls": str(number), "meta.JSON": json.dumps({"text": f"text of {number}"})}
                for ending in sorted(files, reverse=number % 2):
                    info = tarfile.TarInfo(f"part/{number:04d}.{ending}")
                    info.size = len(files[ending])
                    tar.addfile(info, io.BytesIO(files[ending].encode()))
    return folder


def texts(sample):
    return int(sample[0]), np.frombuffer(sample[1]["text"].encode(), np.uint8)


def decoded(dataset):
    return dataset.decode().to_tuple("cls", "meta.json").map(texts)


def write(path, shards, pipeline, workers):
    within(60, lambda: DatasetWriter(path, FIELDS, num_workers=workers).from_webdataset(shards, pipeline))


def numbers_and_texts(path):
    batches = list(Loader(str(path), batch_size=16, num_workers=1, drop_last=False))
    rows = [bytes(row.tolist()).rstrip(b"\0").decode() for _, texts in batches for row in texts]
    return [int(number) for numbers, _ in batches for number in numbers], rows


@pytest.mark.parametrize("workers", [1, 2])
def test_samples_in_the_order_of_the_tars_as_webdataset_has_them(tars, tmp_path, workers):
    wds = pytest.importorskip("webdataset")
    shards = sorted(map(str, tars.iterdir()))

    def even_ones_twice(dataset):  # none of a sample, or two
        return (made for sample in decoded(dataset) if sample[0] % 2 == 0 for made in (sample, sample))

    for pipeline in (decoded, even_ones_twice):
        write(tmp_path / "a.beton", shards, pipeline, workers)
        numbers, rows = numbers_and_texts(tmp_path / "a.beton")
        whole = [s for shard in (shards[0], shards[2]) for s in pipeline(wds.WebDataset(shard, shardshuffle=False))]
        assert numbers == [number for number, _ in whole] and len(numbers) == 70
        assert rows == [f"text of {number}" for number in numbers]


def test_a_pattern_of_shards(tars, tmp_path):
    pytest.importorskip("webdataset")
    write(tmp_path / "a.beton", [str(tars / "a-{000..002}.tar")], decoded, 2)
    assert numbers_and_texts(tmp_path / "a.beton")[0] == [*range(70)]


def test_a_pipeline_that_fails_names_the_tar_and_the_sample(tars, tmp_path):
    pytest.importorskip("webdataset")

    def fails(dataset):
        return decoded(dataset).map(lambda sample: 1 / (sample[0] - 33))

    with pytest.raises(UserError, match=r"a-000.tar: part/0033 \(ZeroDivisionError"):
        write(tmp_path / "a.beton", [str(tars / "a-000.tar")], fails, 2)
    assert not (tmp_path / "a.beton").exists()


def test_what_is_no_tar_on_a_disk_is_refused(tmp_path):
    pytest.importorskip("webdataset")
    for shard in ("https://host/a.tar", "pipe:cat a.tar"):
        with pytest.raises(UserError, match="on a disk"):
            write(tmp_path / "a.beton", [shard], decoded, 1)
    with pytest.raises(UserError, match="missing.tar"):
        write(tmp_path / "a.beton", [str(tmp_path / "missing.tar")], decoded, 1)


def test_without_webdataset_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(UserError, match="needs webdataset; install it"):
        write(tmp_path / "a.beton", [], decoded, 1)
