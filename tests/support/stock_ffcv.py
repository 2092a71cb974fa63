"""Stock FFCV, without a line of ours: for a process of its own, for it can hang.

main() writes out/stock.beton with FFCV's DatasetWriter, reads the files with FFCV's Loader and Reader, and saves
what it read as out/<name of the file>.npz; out/types.json has FFCV's record types, out/originals.npz the photos of
stock.beton, out/refused.json the field types that FFCV does not know, by file.
"""

import json
from pathlib import Path

import numpy as np


def stock_photos() -> list[tuple]:
    """The (image, weight, label) that stock.beton is made of; not all photos have the same size."""
    rng = np.random.default_rng(7)
    return [(rng.integers(0, 256, (20 + i, 30, 3), np.uint8), i / 3, 11 * i) for i in range(9)]


def main(out: Path, files: list[str]) -> None:
    from ffcv import types
    from ffcv.fields import FloatField, IntField, RGBImageField
    from ffcv.pipeline.compiler import Compiler
    from ffcv.writer import DatasetWriter

    fields = {"image": RGBImageField("proportion"), "weight": FloatField(), "label": IntField()}
    writer = DatasetWriter(str(out / "stock.beton"), fields, page_size=1 << 21, num_workers=2)
    photos = stock_photos()
    np.savez(out / "originals.npz", *[image for image, _, _ in photos])
    writer.from_indexed_dataset(photos)
    dtypes = (types.HeaderType, types.FieldDescType, types.ALLOC_TABLE_TYPE, RGBImageField().metadata_type)
    handlers = [types.TYPE_ID_HANDLER[i]() for i in (0, 1, 2, 3, 5)]  # those without arguments
    record = types.get_metadata_type([RGBImageField(), IntField()])
    (out / "types.json").write_text(
        json.dumps([*map(str, dtypes), *[str(h.metadata_type) for h in handlers], str(record)])
    )
    refused = {}
    for file in files:
        Compiler.set_enabled(file == files[0])  # it takes some seconds for each
        try:
            read(file, out)
        except KeyError as error:
            refused[Path(file).name] = int(error.args[0])
    (out / "refused.json").write_text(json.dumps(refused))


def read(file: str, out: Path) -> None:
    from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.reader import Reader
    from ffcv.transforms import ToTensor

    reader = Reader(file)
    found = {"page_size": reader.page_size, "names": reader.field_names, "table": reader.alloc_table}
    found |= {f"field_{name}": reader.metadata[f"f{i}"] for i, name in enumerate(reader.field_names)}
    if not file.endswith("stock.beton"):
        pipelines = {"image": [SimpleRGBImageDecoder(), ToTensor()], "label": [IntDecoder(), ToTensor()]}
        order = OrderOption.SEQUENTIAL
        loader = Loader(file, 5, num_workers=1, order=order, drop_last=False, pipelines=pipelines)
        batches = [(images.numpy().copy(), labels.numpy().copy()) for images, labels in loader]
        found["images"], found["labels"] = map(np.concatenate, zip(*batches, strict=True))
    np.savez(out / f"{Path(file).name}.npz", **found)
