"""Fields of all kinds, written and read: drawn at random, damaged, as FFCV has them, as images."""

import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import beton
from beton.errors import DamagedSample, UserError
from beton.inspecting.commands import main as command
from tests.support import damaged_fields, fields, stock_fields
from tests.support.betons import files_in
from tests.support.scripts import Forked


@pytest.fixture(scope="session")
def examples(pytestconfig):
    """How many field sets are drawn: 1,000 with --slow."""
    return 1000 if pytestconfig.getoption("--slow") else 100


def test_what_is_written_is_read_bit_for_bit(examples, tmp_path_factory):
    path = tmp_path_factory.mktemp("drawn") / "a.beton"

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck), database=None)
    @given(st.randoms(use_true_random=False))
    def check(draw):
        drawn, samples = fields.field_set(draw)
        card = beton.write(samples, path, fields=drawn, workers=1)
        assert list(card["fields"]) == list(drawn)
        with beton.open(path) as file:
            assert len(file) == len(samples)
            for row, sample in zip(file, samples, strict=True):
                assert all(map(fields.same, row, sample.values())), (row, sample)
        with beton.Loader(path, 3, workers=1, shuffle=False, verify=True, **fields.stages(drawn)) as loader:
            found = [row for batch in loader for row in fields.rows(batch)]
        for row, sample in zip(found, samples, strict=True):
            assert all(fields.same(row[name], sample[name]) for name in row), (row, sample)

    check()


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in range(1, 5))])
def test_damage_is_an_error_or_harmless(tmp_path, part):
    """With --slow it is 500."""
    process = Forked(tmp_path / "process", damaged_fields.main, tmp_path, part * 100, 100)
    try:
        assert process.end(600) == 0, f"at {(tmp_path / 'now').read_text()}: {process.errors}"
    finally:
        process.stop()
    counts = json.loads(process.output)
    print(*sorted(counts.items()), sep="\n")
    assert sum(counts.values()) == 100
    for words in ("with card: refused", "without card: refused", "sample errors", "no checksum"):
        assert sum(count for name, count in counts.items() if words in name) >= 3, counts


# FFCV


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """A folder with a file of FFCV's, and one of ours that FFCV has read."""
    pytest.importorskip("ffcv")
    out = tmp_path_factory.mktemp("stock")
    ours = {
        "img": beton.fields.Image("raw"), "mask": beton.fields.Array("uint8", (24, 30)), "y": beton.fields.Float(),
        "meta": beton.fields.Json(), "id": beton.fields.Bytes(), "t": beton.fields.Tensor(torch.float16, (2, 3)),
        "caption": beton.fields.Text(),
    }  # fmt: skip
    samples = [(*sample, f"photo {i} \u20ac") for i, sample in enumerate(stock_fields.samples())]
    beton.write(samples, out / "ours.beton", fields=ours, workers=2)
    process = Forked(out / "process", stock_fields.main, str(out))
    try:
        assert process.end() == 0, process.errors
    finally:
        process.stop()
    return out, samples


def test_a_file_of_stock_ffcv_is_read_bit_for_bit(stock):
    out, samples = stock
    with beton.open(out / "stock.beton") as file:
        kinds = {"img": "rgb_image", "mask": "array", "y": "float", "meta": "json", "id": "bytes", "t": "tensor"}
        assert (file.fields, file.labels, file.card) == (kinds, None, None)
        for row, sample in zip(file, samples, strict=True):
            assert all(map(fields.same, row, (*sample[:4], sample[4].tobytes(), sample[5]))), (row, sample)
    with beton.Loader(out / "stock.beton", 5, img="center((24, 30), 1)", shuffle=False, workers=2) as loader:
        start = 0
        for img, mask, y, meta, id_, t in loader:
            want = samples[start : start + len(y)]
            assert torch.equal(img, torch.stack([torch.from_numpy(s[0]).permute(2, 0, 1) for s in want]))
            assert torch.equal(mask, torch.stack([torch.from_numpy(s[1]) for s in want]))
            assert y.dtype == torch.float64 and y.tolist() == [s[2] for s in want]
            assert (meta, id_) == ([s[3] for s in want], [s[4].tobytes() for s in want])
            assert torch.equal(t, torch.stack([s[5] for s in want]))
            start += len(y)
        assert start == len(samples)


def test_stock_ffcv_reads_ours(stock):
    out, samples = stock
    found = np.load(out / "ours.npz")
    for i, (img, mask, y, meta, id_, t, caption) in enumerate(samples):
        assert (
            (found["img"][i] == img).all() and (found["mask"][i] == mask).all() and (found["t"][i] == t.numpy()).all()
        )
        assert found["y"][i] == y and json.loads(str(found["meta"][i])) == meta
        for name, content in (("id", id_.tobytes()), ("caption", caption.encode())):
            assert found[name][i][: len(content)].tobytes() == content


@pytest.mark.parametrize(
    "field",
    [beton.fields.Array("int8", (None,)), beton.fields.Tensor("bfloat16", (2,)), beton.fields.Array("int8", ())],
)
def test_what_stock_ffcv_cannot_read_has_a_type_that_it_refuses(field):
    assert field.type_id(None) in (8, 9)


# One by one


def test_arrays_whose_length_varies_are_a_list_or_padded_with_their_lengths(tmp_path):
    boxes = [np.arange(4 * i, dtype=np.float32).reshape(i, 4) for i in (2, 0, 3)]
    beton.write([{"boxes": b} for b in boxes], tmp_path / "a.beton", workers=1)
    given = {"batch_size": 3, "shuffle": False, "workers": 1}
    ((found,),) = beton.Loader(tmp_path / "a.beton", **given)
    assert all(map(torch.equal, found, map(torch.from_numpy, boxes)))
    for text, filled in (("pad", 0), ("pad(-1)", -1), (["pad(value=-1)"], -1)):
        (((values, lengths),),) = beton.Loader(tmp_path / "a.beton", boxes=text, **given)
        assert values.shape == (3, 3, 4) and lengths.tolist() == [2, 0, 3]
        assert all(torch.equal(v[:n], torch.from_numpy(b)) for v, n, b in zip(values, lengths, boxes, strict=True))
        assert (values[0, 2:] == filled).all() and (values[1] == filled).all()


def test_scalars_may_be_of_32_bits(tmp_path):
    beton.write([(1 / 3, 2)] * 3, tmp_path / "a.beton", names=("y", "n"), workers=1)
    (batch,) = beton.Loader(tmp_path / "a.beton", 3, y="float32")
    assert batch.y.dtype == torch.float32 and batch.y[0] == np.float32(1 / 3) and batch.n.dtype == torch.int64


WRONG = [
    ({"y": 1.5}, {"y": beton.fields.Int()}, "cannot store sample 0 .y: 1.5 is not a whole number"),
    ({"y": "1"}, {"y": beton.fields.Float()}, "cannot store sample 0 .y: '1' is not a number"),
    ({"y": "x"}, {"y": beton.fields.Bytes()}, "cannot read sample 0 .str instead of bytes"),
    ({"y": b"x"}, {"y": beton.fields.Text()}, "cannot read sample 0 .bytes instead of text"),
    ({"y": {1, 2}}, {"y": beton.fields.Json()}, "cannot read sample 0 .*set is not JSON serializable"),
    ({"y": np.zeros(3)}, {"y": beton.fields.Array("float32", (3,))}, "its dtype is float64, the field's float32"),
    ({"y": np.zeros((3, 2))}, {"y": beton.fields.Array("float64", (None,))}, r"its shape is \(3, 2\), the field's"),
    ({"y": np.zeros(3)}, {"y": beton.fields.Tensor("float64", (3,))}, "ndarray instead of a tensor"),
    ({"y": object()}, None, "the values of 'y' are object, which no field stores; give `fields`"),
    ({"y": 1}, {"z": beton.fields.Int()}, r"dataset\[0\] has no 'z'; the fields are z"),
    ((1, 2, 3), None, "a sample has 3 values without names; give `names`, or `fields`"),
]


@pytest.mark.parametrize(("sample", "given", "words"), WRONG)
def test_a_value_that_is_not_the_fields_is_an_error_that_names_both(tmp_path, sample, given, words):
    with pytest.raises(UserError, match=words):
        beton.write([sample] * 3, tmp_path / "a.beton", fields=given, workers=1)
    assert files_in(tmp_path) == []


def test_a_field_is_not_asked_for_what_it_cannot_do(tmp_path):
    data = [{"y": 0.5, "t": "a", "a": np.zeros((4, 5, 2), np.int32), "b": np.zeros((4, 5, 2), np.uint8)}] * 3
    beton.write(data, tmp_path / "a.beton", workers=1)
    for wrong, words in (
        ({"y": "flip"}, "'y' holds numbers, which take no stages"),
        ({"t": "flip"}, "'t' holds text, which takes no stages"),
        ({"a": "center(4)"}, "'a' holds no images but arrays of int32"),
        ({"a": "pad"}, "'a' cannot be padded"),
        ({"b": "center(4)|jitter(0.4)"}, "'jitter' is for photos, and the field 'b' holds arrays"),
        ({"b": "center(4)|normalize"}, "is not 2 numbers; give one for each of the 2 channels"),
        ({"b": 3}, "`b`=3 is neither text nor a list of text"),
    ):
        with pytest.raises(UserError, match=words):
            beton.Loader(tmp_path / "a.beton", 2, **wrong)


def test_fields_are_inferred_from_the_samples(tmp_path):
    def sample(i):
        return {
            "photo": np.full((4, 5, 3), i, np.uint8), "grey": np.full((4, 5), i, np.uint8), "y": 0.5 if i else 1,
            "boxes": np.zeros((i, 4), np.float32), "t": torch.zeros(2, 3), "label": np.int32(i), "yes": i == 1,
            "name": "a" * i, "raw": bytes(i), "tree": [{"a": i}] if i else None,
        }  # fmt: skip

    beton.write([sample(i) for i in range(5)], tmp_path / "a.beton", workers=2, write_mode="raw")
    with beton.open(tmp_path / "a.beton") as file:
        kinds = ["rgb_image", "array", "float", "array", "tensor", "int", "int", "text", "bytes", "json"]
        assert list(file.fields.values()) == kinds and list(file.fields) == list(sample(0))
        assert file.columns["boxes"].field.shape == (None, 4)
        assert all(map(fields.same, file[3], {**sample(3), "label": 3, "yes": 0}.values()))
    with pytest.raises(UserError, match=r"'y' are of several kinds .int, text.; give `fields`"):
        beton.write([{"y": 1}, {"y": "a"}], tmp_path / "b.beton", workers=1)


def test_a_dataset_that_uses_torchs_threads_is_written(tmp_path):
    work = torch.rand(600, 600)
    work @ work  # has started them in this process

    class Products:
        def __len__(self):
            return 40

        def __getitem__(self, i):
            return {"t": (work @ work)[:2] * i}

    beton.write(Products(), tmp_path / "a.beton", workers=2)


# Arrays as images


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """The same photos as `photo`, and as arrays of several dtypes and numbers of channels."""
    rng = np.random.default_rng(0)
    path, samples = tmp_path_factory.mktemp("pictures") / "a.beton", []
    for i in range(12):
        photo = np.kron(rng.integers(0, 256, (7 + i, 20 - i, 3), np.uint8), np.ones((4, 4, 1), np.uint8))
        samples.append(
            {
                "photo": photo, "u8": photo, "u16": photo.astype(np.uint16) * 257,
                "f32": photo.astype(np.float32) / 255,
                "grey": photo[..., 0].copy(), "five": photo[..., [0, 1, 2, 1, 0]].copy(),
            }
        )  # fmt: skip
    shape = {"u8": ("uint8", (None, None, 3)), "u16": ("uint16", (None, None, 3)), "f32": ("float32", (None, None, 3))}
    shape |= {"grey": ("uint8", (None, None)), "five": ("uint8", (None, None, 5))}
    given = {"photo": beton.fields.Image("raw")} | {name: beton.fields.Array(*about) for name, about in shape.items()}
    beton.write(samples, path, fields=given, workers=1)
    return path


@pytest.mark.parametrize("crop", ["rrc(24)", "center(24)", "rrc(40)", "src(24)", "center((20, 28), 0.9, 'bicubic')",
                                  "src(24, padding=9, fill=7)", "rrc(16, interpolation='bilinear')"])  # fmt: skip
@pytest.mark.parametrize("behind", ["|flip|vflip", "|vflip|flip|translate(3, 9)"])
def test_array_images_get_the_crops_and_the_mirroring_of_photos(pictures, crop, behind):
    """Photos go through the kernels, arrays through OpenCV and torch."""
    given = {"batch_size": 12, "workers": 2, "seed": 4, "columns": ("photo", "u8", "u16", "f32", "grey", "five")}
    (batch,) = beton.Loader(pictures, **given, **dict.fromkeys(given["columns"], crop + behind))
    photo = batch.photo.float()
    assert batch.u8.dtype == torch.uint8 and batch.u16.dtype == torch.uint16 and batch.f32.dtype == torch.float32
    assert batch.grey.shape[1] == 1 and batch.five.shape[1] == 5
    filled = "fill" in crop or "translate" in behind  # 7 and 9 are other values there
    for name, found in (("u8", batch.u8.float()), ("grey", batch.grey.float()), ("five", batch.five.float())):
        assert found.is_contiguous(memory_format=torch.channels_last)
        want = photo[:, {"u8": [0, 1, 2], "grey": [0], "five": [0, 1, 2, 1, 0]}[name]]
        assert (found - want).abs().max() <= 1, name
    if not filled:
        for found in (batch.u16.float() / 257, batch.f32 * 255):
            # With 8 bits, what bicubic filters make of an edge is cut off after each of two passes
            difference = (found - photo).abs()
            assert difference.mean() < 1 if "bicubic" in crop or "src" in crop else difference.max() <= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_array_images_are_normalised_as_torchvision_does(pictures, dtype):
    from torchvision.transforms.v2.functional import normalize

    given = {"batch_size": 12, "shuffle": False, "workers": 1, "dtype": dtype}
    mean, std = (0.1, 0.2, 0.3, 0.4, 0.5), (0.5, 0.4, 0.3, 0.2, 0.1)
    text = {"five": f"center(16)|flip|normalize({mean}, {std})", "u16": "center(16)|flip|normalize(0.5, 0.25)"}
    (found,) = beton.Loader(pictures, columns=("five", "u16"), **text, **given)
    plain = {name: stages.rpartition("|")[0] for name, stages in text.items()}
    (pixels,) = beton.Loader(pictures, columns=("five", "u16"), **plain, **given)
    near = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 1e-2}
    for name, unit, how in (("five", 255, (mean, std)), ("u16", 65535, ([0.5] * 3, [0.25] * 3))):
        column = getattr(found, name)
        assert column.dtype == dtype and column.is_contiguous(memory_format=torch.channels_last)
        want = normalize(getattr(pixels, name).float() / unit, *map(list, how))
        torch.testing.assert_close(column.float(), want, **near)


# Looking into a file


def test_check_info_and_preview_know_all_fields(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = [{"t": f"word {i}" * 9, "a": np.full((6, 8), i, np.uint16), "y": i / 2, "j": [i]} for i in range(9)]
    beton.write(data, "a.beton", workers=1, say=lambda text: None)
    assert [command([name, "a.beton"]) for name in ("info", "check", "preview")] == [0, 0, 0]
    said = capsys.readouterr().out
    for words in (
        "uint16, 6 x 8, 0.0 MB",
        "0 to 4",
        "54 to 54 bytes",
        "all 9 samples are good",
        "9 samples of a.beton",
    ):
        assert words in said
    beton.write([{"t": s["t"]} for s in data], "b.beton", workers=1)
    with beton.open("b.beton") as file:
        start = int(file.columns["t"].addresses[4])
    np.memmap("b.beton", np.uint8, "r+", start, 1)[0] ^= 1
    assert [command([name, "b.beton"]) for name in ("check", "preview")] == [1, 0]
    assert "damaged: sample 4" in capsys.readouterr().out
    with beton.open("b.beton") as file, pytest.raises(DamagedSample, match="sample 4 "):
        file[4]
    for policy, count in (("skip", 8), ("substitute", 9)):
        with beton.Loader("b.beton", 4, verify=True, on_error=policy, workers=1) as loader:
            assert len([text for batch in loader for text in batch.t]) == count and list(loader.left_out) == [4]


class Interrupt(BaseException):
    """In place of Ctrl-C."""


def test_a_write_of_any_fields_is_resumed_to_the_same_bytes_and_not_with_other_fields(tmp_path):
    drawn, samples = fields.field_set(__import__("random").Random(3))
    samples *= 5

    def stop(count, left=[7]):  # noqa: B006
        left[0] -= count
        if not left[0]:
            raise Interrupt

    given = {"fields": drawn, "workers": 1, "resume": True, "say": lambda text: None}
    whole = beton.write(samples, tmp_path / "whole.beton", **given)
    with pytest.raises(Interrupt):
        beton.write(samples, tmp_path / "a.beton", progress=stop, **given)
    other = {name: beton.fields.Json() for name in drawn}
    with pytest.raises(UserError, match="the interrupted write had"):
        beton.write(samples, tmp_path / "a.beton", **(given | {"fields": other}))
    card = beton.write(samples, tmp_path / "a.beton", **given)
    assert card["sha256"] == whole["sha256"] and card["resumed"] == 7
