"""Damaged tables are user errors; what is read of a file is sound."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beton import kernels
from beton.errors import UserError
from beton.format import records
from beton.format.file import BetonFile
from beton.format.modes import MODES
from tests.support.betons import BLOCKS, JPEG, RAW, image_records, write_good
from tests.support.photos import make_folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A valid file of 5 small photos, kept below 20 kB by small pages."""
    folder = tmp_path_factory.mktemp("small")
    make_folder(folder / "photos", [(12, 16 + i) for i in range(5)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_SMALLEST_PAGE", 1024)
        return write_good(folder / "a.beton", folder / "photos", write_mode="proportion")


@pytest.fixture(scope="module")
def small_blocks(small, tmp_path_factory):
    """The same photos, some of them stored as blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_SMALLEST_PAGE", 1024)
        path = tmp_path_factory.mktemp("blocks") / "a.beton"
        return write_good(path, small.parent / "photos", write_mode="proportion", rest="blocks")


def put(small, content: bytes):
    """A file with this content beside the valid one."""
    path = small.with_name("damaged.beton")
    path.write_bytes(content)
    return path


def damage(small, at: int, content: bytes):
    """A copy of the valid file with `content` from `at` on (from the end if negative), its size unchanged."""
    whole = small.read_bytes()
    at %= len(whole)
    return put(small, (whole[:at] + content + whole[at + len(content) :])[: len(whole)])


METADATA = 24 + 2 * 1041  # where it begins
TABLE = 5 * 24  # its bytes, at the end


def assert_error_or_sound_index(path):
    """Reading ends with a UserError that names the file, or an index whose payloads lie inside the file."""
    try:
        file = BetonFile(path)
    except UserError as error:
        assert str(path) in str(error)
        return
    with file:
        assert len(file) > 0
        for column in file.columns.values():
            assert len(column.records) == len(file)
            if column.sizes is None:
                continue
            for start, size in zip(column.addresses.tolist(), column.sizes.tolist(), strict=True):
                assert size >= 0
                assert start + size <= path.stat().st_size


@settings(max_examples=300)
@given(data=st.data())
def test_file_truncated_anywhere_is_a_user_error(small, data):
    whole = small.read_bytes()
    path = put(small, whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(UserError, match="is not a complete .beton file"):
        BetonFile(path)


@settings(max_examples=500)
@given(
    at=st.integers(0, 23) | st.integers(0, METADATA + 5 * 24) | st.integers(-TABLE, -1),
    content=st.binary(min_size=1, max_size=32) | st.just(bytes(64)) | st.just(b"\xff" * 24),
)
def test_damaged_tables_give_a_user_error_or_a_sound_index(small, small_blocks, at, content):
    for file in (small, small_blocks):
        assert_error_or_sound_index(damage(file, at, content))


@settings(max_examples=200)
@given(st.binary(max_size=4096))
def test_any_bytes_are_a_user_error(small, content):
    with pytest.raises(UserError):
        BetonFile(put(small, content))
    assert_error_or_sound_index(put(small, b"\2\0" + content))


def number(value: int, size: int = 8) -> bytes:
    return value.to_bytes(size, "little")


@pytest.mark.parametrize(
    ("at", "content", "words"),
    [
        (0, number(1, 2), "format version 1 instead of 2"),
        (2, number(0, 2), "no|size that it should have"),
        (2, number(65535, 2), "field table is truncated"),
        (8, number(0), "has no samples"),
        (8, number(1 << 62), "metadata is truncated"),
        (8, number((1 << 64) - 1), "metadata is truncated"),
        (16, number(0), "no address of its allocation table"),
        (16, number(1 << 63), "address of its allocation table"),
        (16, number(24), "allocation table has not the size|within other tables"),
        (24, number(99, 1), "fields of an unknown type: image"),
        (24 + 1041 + 1, b"image", "two of its fields have the same name"),
        (4, number(1000, 4), "page size of 1000, not a power of two"),
        (METADATA, bytes(TABLE), "its metadata is zero: writing it was interrupted"),
        (METADATA, number(2, 1), "unknown mode"),
        (METADATA + 1, number(0, 2), "samples without a size|size is not that"),
        (METADATA + 5, number(1 << 62), "samples without an entry"),
        (-TABLE, bytes(TABLE), "samples without an entry"),
        (-TABLE, number(1), "whose payloads are those of others"),
        (-TABLE + 16, number(1 << 13), "overlap|beyond"),
        (-8, number(1 << 40), "beyond the place"),
        (-8, number((1 << 64) - 1), "beyond the place"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
)
def test_damage_is_named(small, at, content, words):
    with pytest.raises(UserError, match=words):
        BetonFile(damage(small, at, content))


def test_address_that_overflows_is_an_error(small):
    """A start and a size whose sum is beyond 64 bits and so seems small."""
    content = bytearray(small.read_bytes())
    content[METADATA + 5 : METADATA + 13] = content[-TABLE + 8 : -TABLE + 16] = number((1 << 64) - 8)
    with pytest.raises(UserError, match="beyond the place"):
        BetonFile(put(small, content))


def test_raw_photo_of_another_size_than_its_pixels_is_an_error(small):
    raw = int(np.flatnonzero(image_records(small)["mode"] == RAW)[0])
    with pytest.raises(UserError, match="size is not that of their pixels"):
        BetonFile(damage(small, METADATA + 24 * raw + 3, number(11, 2)))


def test_blocks_of_another_size_than_the_photo_has_are_an_error(small_blocks):
    modes = image_records(small_blocks)["mode"]
    assert set(modes.tolist()) == {JPEG, BLOCKS}
    at = METADATA + 24 * int(np.flatnonzero(modes == BLOCKS)[0])
    for place, value in ((1, 8), (1, 33), (3, 8), (3, 17)):
        with pytest.raises(UserError, match="blocks samples whose size is not that of their pixels"):
            BetonFile(damage(small_blocks, at + place, number(value, 2)))
    with pytest.raises(UserError, match="raw samples whose size is not"):
        BetonFile(damage(small_blocks, at, number(RAW, 1)))
    with pytest.raises(UserError, match="unknown mode"):
        BetonFile(damage(small_blocks, 24, number(2, 1)))
    with pytest.raises(UserError, match="unknown mode"):
        BetonFile(damage(small_blocks, at, number(3, 1)))


def test_size_of_blocks_is_that_of_the_kernel():
    rng = np.random.default_rng(0)
    sizes = np.array([*np.ndindex(20, 20), *rng.integers(0, 200, (50, 2))]) + 1
    found = [kernels.encode_blocks(np.zeros((*size, 3), np.uint8)).size for size in sizes]
    size = MODES.get("blocks").size
    assert size(sizes[:, 0], sizes[:, 1]).tolist() == found
    assert size(500, 375) == pytest.approx(0.75 * 500 * 375, rel=0.1)


def test_missing_file_and_folder_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        BetonFile(tmp_path / "none.beton")
    with pytest.raises(UserError, match="a folder, not a .beton"):
        BetonFile(tmp_path)
