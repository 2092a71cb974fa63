"""The format: stock FFCV 1.0.2 reads what we write, we read what it writes, and damaged files are user errors."""

import ctypes
import ctypes.util
import io
import json
import os
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from writing import make_folder, payloads, stored_photos, write_good

from pipelines import beton, encode, kernels
from pipelines.beton import BLOCKS, JPEG, RAW, blocks_size, read_card, read_index
from pipelines.errors import UserError

MODES = {
    "raw": {"write_mode": "raw"},
    "jpg": {"write_mode": "jpg"},
    "proportion": {"write_mode": "proportion", "compress_probability": 0.4},
    "smart": {"write_mode": "smart", "smart_threshold": 100},
    "smart_raw": {"write_mode": "smart"},
}


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """Our files in all modes and one of FFCV's, read by FFCV in one process: (folder, photos as stored)."""
    out = tmp_path_factory.mktemp("stock")
    photos = make_folder(out / "photos", [(60, 90)] * 12)
    files = [write_good(out / f"{mode}.beton", out / "photos", max_resolution=48, **cfg) for mode, cfg in MODES.items()]
    files.append(write_good(out / "blocks.beton", out / "photos", write_mode="proportion", rest="blocks"))
    command = [sys.executable, ROOT / "tests" / "stock_ffcv.py", out, *files, out / "stock.beton"]
    # A group of its own: FFCV's writer has processes, which a timeout must end too
    process = subprocess.Popen(map(str, command), stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        _, stderr = process.communicate(timeout=180)
        assert process.returncode == 0, stderr
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    shrunk = [cv2.resize(photo, (48, 32), interpolation=cv2.INTER_AREA) for photo in photos]
    return out, shrunk


def fast_dct(payload: bytes) -> np.ndarray:
    """The JPEG as libjpeg-turbo decodes it with the flag that FFCV sets."""
    turbo = ctypes.CDLL(ctypes.util.find_library("turbojpeg") or "libturbojpeg.so.0")
    turbo.tjInitDecompress.restype = ctypes.c_void_p
    decoder, pixels = ctypes.c_void_p(turbo.tjInitDecompress()), np.empty((32, 48, 3), np.uint8)
    size, target = ctypes.c_ulong(len(payload)), ctypes.c_void_p(pixels.ctypes.data)
    assert turbo.tjDecompress2(decoder, payload, size, target, 48, 0, 32, 0, 2048) == 0
    turbo.tjDestroy(decoder)
    return pixels


@pytest.mark.parametrize("mode", MODES)
def test_stock_ffcv_reads_what_we_write(stock, mode):
    out, photos = stock
    index, stored = read_index(out / f"{mode}.beton"), payloads(out / f"{mode}.beton")
    found = np.load(out / f"{mode}.beton.npz")
    assert found["labels"].ravel().tolist() == [0] * 6 + [1] * 6
    assert found["images"].shape == (12, 32, 48, 3)
    modes = index.metadata["image"]["mode"].tolist()
    for photo, image, payload, how in zip(photos, found["images"], stored, modes, strict=True):
        if how == RAW:
            np.testing.assert_array_equal(image, photo)
        else:
            np.testing.assert_array_equal(image, fast_dct(payload))
            assert np.abs(image.astype(int) - np.asarray(Image.open(io.BytesIO(payload)))).max() <= 4
    jpegs = {"raw": 0, "jpg": 12, "proportion": 5, "smart": 12, "smart_raw": 0}
    assert modes.count(JPEG) == jpegs[mode]
    # It is JPEGs with restart markers that FFCV has read
    assert sum(b"\xff\xdd\0\4\0\3" in payload for payload in stored) == jpegs[mode]


def test_stock_ffcv_refuses_a_file_with_blocks(stock):
    assert json.loads((stock[0] / "refused.json").read_text()) == {"blocks.beton": beton.BLOCKS_FIELD}


@pytest.mark.parametrize("name", [*MODES, "stock"])
def test_ffcvs_reader_finds_the_tables_that_we_find(stock, name):
    index, found = read_index(stock[0] / f"{name}.beton"), np.load(stock[0] / f"{name}.beton.npz")
    assert index.page_size == found["page_size"]
    assert list(index.fields) == found["names"].tolist()
    for field, records in index.metadata.items():
        theirs = found[f"field_{field}"]
        assert records.dtype == theirs.dtype
        assert records.tolist() == theirs.tolist()
    size_at = dict(found["table"][["ptr", "size"]].tolist())
    assert index.sizes.tolist() == [size_at[at] for at in index.metadata["image"]["data_ptr"].tolist()]


def test_our_record_types_are_ffcvs(stock):
    ours = [beton.HEADER, beton.FIELD, beton.ALLOCATION, beton.IMAGE]
    ours += [beton.FIELD_TYPES[i][1] for i in (0, 1, 2, 3, 5)]
    ours += [beton.metadata_type([beton.RGB_FIELD, beton.INT_FIELD])]
    assert json.loads((stock[0] / "types.json").read_text()) == [str(dtype) for dtype in ours]


def test_file_of_stock_ffcv_is_read(stock):
    path = stock[0] / "stock.beton"
    index, originals = read_index(path), np.load(stock[0] / "originals.npz")
    assert read_card(path) is None
    assert index.fields == {"image": 2, "weight": 0, "label": 1}
    assert (index.num_samples, index.page_size) == (9, 1 << 21)
    assert index.metadata["weight"].tolist() == [i / 3 for i in range(9)]
    assert index.metadata["label"].tolist() == [11 * i for i in range(9)]
    modes = index.metadata["image"]["mode"].tolist()
    for i, (photo, mode) in enumerate(zip(stored_photos(path), modes, strict=True)):
        original = originals[f"arr_{i}"]
        assert photo.shape == original.shape
        assert mode == JPEG or (photo == original).all()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A valid file of 5 small photos, kept below 20 kB by small pages."""
    folder = tmp_path_factory.mktemp("small")
    make_folder(folder / "photos", [(12, 16 + i) for i in range(5)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "_MIN_PAGE", 1024)
        return write_good(folder / "a.beton", folder / "photos", write_mode="proportion")


@pytest.fixture(scope="module")
def small_blocks(small, tmp_path_factory):
    """The same photos, some of them stored as blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "_MIN_PAGE", 1024)
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
        index = read_index(path)
    except UserError as error:
        assert str(path) in str(error)
        return
    image = index.metadata[next(name for name, kind in index.fields.items() if kind in beton.IMAGE_FIELDS)]
    assert len(index.sizes) == len(image) == index.num_samples > 0
    for start, size in zip(image["data_ptr"].tolist(), index.sizes.tolist(), strict=True):
        assert size >= 0
        assert start + size <= path.stat().st_size


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_file_cut_off_anywhere_is_a_user_error(small, data):
    whole = small.read_bytes()
    path = put(small, whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(UserError, match="is not a complete .beton file"):
        read_index(path)


@settings(deadline=None, max_examples=500)
@given(
    at=st.integers(0, 23) | st.integers(0, METADATA + 5 * 24) | st.integers(-TABLE, -1),
    content=st.binary(min_size=1, max_size=32) | st.just(bytes(64)) | st.just(b"\xff" * 24),
)
def test_damaged_tables_give_a_user_error_or_a_sound_index(small, at, content):
    assert_error_or_sound_index(damage(small, at, content))


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=4096))
def test_any_bytes_are_a_user_error(small, content):
    with pytest.raises(UserError):
        read_index(put(small, content))
    assert_error_or_sound_index(put(small, b"\2\0" + content))


def number(value: int, size: int = 8) -> bytes:
    return value.to_bytes(size, "little")


@pytest.mark.parametrize(
    ("at", "content", "words"),
    [
        (0, number(1, 2), "format version 1 instead of 2"),
        (2, number(0, 2), "no|size that it should have"),
        (2, number(65535, 2), "field table is cut off"),
        (8, number(0), "has no samples"),
        (8, number(1 << 62), "metadata is cut off"),
        (8, number((1 << 64) - 1), "metadata is cut off"),
        (16, number(0), "no address of its allocation table"),
        (16, number(1 << 63), "address of its allocation table"),
        (16, number(24), "allocation table has not the size|within other tables"),
        (24, number(9, 1), "fields of an unknown type: image"),
        (24, number(1, 1), "no image field"),
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
        read_index(damage(small, at, content))


def test_address_that_overflows_is_an_error(small):
    """A start and a size whose sum is beyond 64 bits and so seems small."""
    content = bytearray(small.read_bytes())
    content[METADATA + 5 : METADATA + 13] = content[-TABLE + 8 : -TABLE + 16] = number((1 << 64) - 8)
    with pytest.raises(UserError, match="beyond the place"):
        read_index(put(small, content))


def test_raw_photo_of_another_size_than_its_pixels_is_an_error(small):
    raw = int(np.flatnonzero(read_index(small).metadata["image"]["mode"] == RAW)[0])
    with pytest.raises(UserError, match="size is not that of their pixels"):
        read_index(damage(small, METADATA + 24 * raw + 3, number(11, 2)))


def test_blocks_of_another_size_than_the_photo_has_are_an_error(small_blocks):
    modes = read_index(small_blocks).metadata["image"]["mode"]
    assert set(modes.tolist()) == {JPEG, BLOCKS}
    at = METADATA + 24 * int(np.flatnonzero(modes == BLOCKS)[0])
    for place, value in ((1, 8), (1, 33), (3, 8), (3, 17)):
        with pytest.raises(UserError, match="blocks whose size is not that of their pixels"):
            read_index(damage(small_blocks, at + place, number(value, 2)))
    with pytest.raises(UserError, match="raw samples whose size is not"):
        read_index(damage(small_blocks, at, number(RAW, 1)))
    with pytest.raises(UserError, match="unknown mode"):
        read_index(damage(small_blocks, 24, number(beton.RGB_FIELD, 1)))
    with pytest.raises(UserError, match="unknown mode"):
        read_index(damage(small_blocks, at, number(3, 1)))


@settings(deadline=None, max_examples=200)
@given(
    at=st.integers(0, METADATA + 5 * 24) | st.integers(-TABLE, -1),
    content=st.binary(min_size=1, max_size=32) | st.just(bytes(64)),
)
def test_damaged_tables_of_a_file_with_blocks_give_a_user_error_or_a_sound_index(small_blocks, at, content):
    assert_error_or_sound_index(damage(small_blocks, at, content))


def test_size_of_blocks_is_that_of_the_kernel():
    rng = np.random.default_rng(0)
    sizes = np.array([*np.ndindex(20, 20), *rng.integers(0, 200, (50, 2))]) + 1
    found = [kernels.encode_blocks(np.zeros((*size, 3), np.uint8)).size for size in sizes]
    assert blocks_size(sizes[:, 0], sizes[:, 1]).tolist() == found
    assert blocks_size(500, 375) == pytest.approx(0.75 * 500 * 375, rel=0.1)


def test_missing_file_and_folder_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        read_index(tmp_path / "none.beton")
    with pytest.raises(UserError, match="is not a .beton file"):
        read_index(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"", b"[]", b"\xff\xfe\x00", b'"text"'])
def test_damaged_card_is_a_user_error(tmp_path, content):
    (tmp_path / "a.beton.json").write_bytes(content)
    with pytest.raises(UserError, match="a.beton.json"):
        read_card(tmp_path / "a.beton")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda card: card.mkdir(), "is not a file"),
        (os.mkfifo, "is not a file"),
        (lambda card: card.symlink_to("/proc/self/mem"), "^cannot read .*Input/output error"),
    ],
    ids=["folder", "pipe", "unreadable"],
)
def test_card_that_cannot_be_read_is_a_user_error(tmp_path, make, words):
    make(tmp_path / "a.beton.json")
    with pytest.raises(UserError, match=words) as caught:
        read_card(tmp_path / "a.beton")
    assert "a.beton.json" in str(caught.value)
