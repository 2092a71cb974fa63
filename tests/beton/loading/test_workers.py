"""What the threads of a loader keep from epoch to epoch changes nothing of what comes out."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from beton import kernels
from beton.loading.loader import Loader
from pipelines import open_pipeline
from tests.support.betons import write_beton
from tests.support.loaders import fingerprint, run_epoch, task

STAGES = "rrc(32)|flip|normalize"
# Quality, Huffman tables of its own or not, subsampling, height
JPEGS = st.tuples(st.integers(20, 97), st.booleans(), st.integers(0, 2), st.integers(1, 70))


def photos(count):
    draw = np.random.default_rng(1)
    sizes = draw.integers(17, 90, (count, 2)).tolist()
    return [draw.integers(0, 256, (height, width, 3), np.uint8) for height, width in sizes]


@pytest.mark.parametrize("mode", ["raw", "jpg", "blocks"])
def test_an_epoch_is_the_same_after_others(tmp_path, mode):
    path = write_beton(tmp_path / "a.beton", photos(60), mode)
    fresh = [fingerprint(run_epoch("beton", path, epoch, stages=STAGES)) for epoch in range(4)]
    with open_pipeline("beton", task(path, STAGES)) as pipeline:
        assert fingerprint(list(pipeline.batches(0))) == fresh[0]
        left = pipeline.batches(1)
        next(left)
        left.close()
        # Two at the same time
        pairs = zip(pipeline.batches(2), pipeline.batches(3), strict=True)
        second, third = zip(*pairs, strict=True)
        assert [fingerprint(second), fingerprint(third)] == fresh[2:]
        assert fingerprint(list(pipeline.batches(1))) == fresh[1]


@pytest.mark.parametrize(("sizes", "stages"), [([(40, 30)], "center(24)"), ([(40, 30), (30, 40)], "center(24)")])
def test_a_centre_is_the_same_for_photos_of_one_size_and_of_several(tmp_path, sizes, stages):
    draw, order = np.random.default_rng(2), {"shuffle": False, "batch_size": 40}
    given_photos = [draw.integers(0, 256, (*sizes[n % len(sizes)], 3), np.uint8) for n in range(20)]
    with Loader(write_beton(tmp_path / "a.beton", given_photos), image=stages, **order) as loader:
        images, _ = next(iter(loader))
    for n, photo in enumerate(given_photos):
        with Loader(write_beton(tmp_path / f"{n}.beton", [photo, photos(1)[0]]), image=stages, **order) as alone:
            assert (next(iter(alone))[0][0] == images[n]).all()


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(20, 97), st.booleans(), st.integers(0, 2), st.integers(1, 70)), min_size=2, max_size=8
    )
)
def test_tables_of_one_jpeg_are_not_those_of_another(about):
    draw = np.random.default_rng(3)
    for quality, optimize, subsampling, side in about:
        pixels = draw.integers(0, 256, (side, 65, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).resize((66, side)).save(
            file, "JPEG", quality=quality, optimize=optimize, subsampling=subsampling
        )
        found = kernels.decode_jpeg(file.getvalue(), side, 66)
        assert (found == np.asarray(Image.open(file))).all()
