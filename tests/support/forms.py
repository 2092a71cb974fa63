"""A folder of class folders in each of the forms that sources read."""

import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np

from beton.sources import imagenet_tars
from beton.sources.imagefolder import PhotoFolder


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file to an open tar."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def class_tar(folder: Path, name: str) -> bytes:
    """The photos of a class as a tar, in no order."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for path in sorted((folder / name).iterdir(), reverse=True):
            add(tar, path.name, path.read_bytes())
    return file.getvalue()


def imagenet_train(folder: Path, out: Path) -> Path:
    """The tar of the class tars."""
    with tarfile.open(out / imagenet_tars.TRAIN, "w") as tar:
        for name in sorted((path.name for path in folder.iterdir()), reverse=True):
            add(tar, f"{name}.tar", class_tar(folder, name))
    return out


def imagenet_val(folder: Path, out: Path) -> Path:
    """The flat tar of the photos, and the devkit with their labels: numbers that are not in the order of the names."""
    from scipy.io import savemat

    names = sorted((path.name for path in folder.iterdir()), reverse=True)
    number_of = {name: number for number, name in enumerate(names, 1)}
    photos = sorted(folder.glob("*/*"), key=lambda path: path.name)
    with tarfile.open(out / imagenet_tars.VAL, "w") as tar:
        for path in reversed(photos):
            add(tar, path.name, path.read_bytes())
    kinds = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
    synsets = [(number, name, f"words of {name}", 0) for name, number in number_of.items()]
    synsets.append((len(names) + 1, "n00000000", "the tree above", len(names)))
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array(synsets, kinds)[:, None]})
    truth = "".join(f"{number_of[path.parent.name]}\n" for path in photos)
    with tarfile.open(out / imagenet_tars.DEVKIT, "w:gz") as tar:
        add(tar, "ILSVRC2012_devkit_t12/data/meta.mat", meta.getvalue())
        add(tar, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", truth.encode())
    return out


def class_tars(folder: Path, out: Path) -> Path:
    """A tar for each class."""
    for path in folder.iterdir():
        (out / f"{path.name}.tar").write_bytes(class_tar(folder, path.name))
    return out


def webdataset(folder: Path, out: Path) -> str:
    """Three tars of photos and classes; returns their pattern."""
    source = PhotoFolder(str(folder))
    for shard, part in enumerate(np.array_split(np.arange(len(source)), 3)):
        with tarfile.open(out / f"val-{shard:03d}.tar", "w") as tar:
            for i in part.tolist():
                photo, label = source.read(i)
                add(tar, f"./{i:05d}.cls", str(label).encode())
                add(tar, f"./{i:05d}.jpg", photo)
    (out / "classes.txt").write_text("".join(f"{name}\n" for name in source.classes))
    return f"{out}/val-{{000..002}}.tar"


def hf_table(folder: Path):
    """The photos and classes as pyarrow.Table, with what `datasets` notes in its schema."""
    import json

    import pyarrow as pa

    source = PhotoFolder(str(folder))
    rows = [source.read(i) for i in range(len(source))]
    images = [{"bytes": photo, "path": source.stored_name(i)} for i, (photo, _) in enumerate(rows)]
    features = {"image": {"_type": "Image"}, "label": {"names": source.classes, "_type": "ClassLabel"}}
    schema = pa.schema(
        {"label": pa.int64(), "image": pa.struct({"bytes": pa.binary(), "path": pa.string()})},
        {"huggingface": json.dumps({"info": {"features": features}})},
    )
    return pa.table({"label": [label for _, label in rows], "image": images}, schema)


def parquet(folder: Path, out: Path) -> Path:
    """Two Parquet files of the validation split, each of several groups of rows, beside one of another split."""
    import pyarrow.parquet as pq

    table, half = hf_table(folder), len(PhotoFolder(str(folder))) // 2
    (out / "data").mkdir()
    pq.write_table(table.slice(0, half), out / "data" / "validation-00000-of-00002.parquet", row_group_size=7)
    pq.write_table(table.slice(half), out / "data" / "validation-00001-of-00002.parquet", row_group_size=7)
    pq.write_table(table.slice(0, 3), out / "data" / "train-00000-of-00001.parquet")
    return out


def arrow(folder: Path, out: Path) -> Path:
    """An Arrow stream, as `datasets` saves them."""
    import pyarrow as pa

    (out / "validation").mkdir()
    table = hf_table(folder)
    with pa.ipc.new_stream(out / "validation" / "data-00000-of-00001.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=10)
    return out


def zipped(folder: Path, out: Path) -> Path:
    """A zip with the folder as its val/, in no order, some of it compressed."""
    path = out / "photos.zip"
    with zipfile.ZipFile(path, "w") as file:
        for number, photo in enumerate(sorted(folder.glob("*/*"), reverse=True)):
            kind = zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED
            file.write(photo, f"val/{photo.relative_to(folder)}", kind)
        file.writestr("train/x/a.jpg", b"")
    return path


def country211(folder: Path, out: Path) -> Path:
    """As torchvision's set Country211 lies on a disk."""
    for split in ("train", "valid", "test"):
        shutil.copytree(folder, out / "country211" / split)
    return out


# Name of the source, what makes its form, and the module that it needs
FORMS = {
    "ILSVRC train": ("imagenet_tars", imagenet_train, "tarfile", "train"),
    "ILSVRC val": ("imagenet_tars", imagenet_val, "scipy", "val"),
    "21k": ("imagenet_tars", class_tars, "tarfile", "val"),
    "webdataset": ("webdataset", webdataset, "tarfile", "val"),
    "Parquet": ("huggingface", parquet, "pyarrow", "val"),
    "Arrow": ("huggingface", arrow, "pyarrow", "val"),
    "zip": ("zip", zipped, "zipfile", "val"),
    "torchvision": ("torchvision:Country211", country211, "torchvision", "val"),
}
