"""Stock FFCV's fields, without a line of ours: for a process of its own, for it can hang.

main() writes stock.beton with FFCV's DatasetWriter, and reads ours.beton with its Loader into ours.npz.
"""

import json
from pathlib import Path

import numpy as np
import torch


def samples() -> list[tuple]:
    """(img, mask, y, meta, id, t): no field is called image or label, and there is none of whole numbers."""
    rng = np.random.default_rng(7)
    return [
        (
            rng.integers(0, 256, (24, 30, 3), np.uint8),
            rng.integers(0, 256, (24, 30), np.uint8),
            i / 3 - 1,
            {"name": f"p\u00e9{i}", "boxes": [[i, 0.5]], "none": None},
            rng.integers(0, 256, i * 5 % 11, np.uint8),
            torch.from_numpy(rng.normal(size=(2, 3)).astype(np.float16)),
        )
        for i in range(13)
    ]


def main(out: str) -> None:
    from ffcv.fields import (
        BytesField,
        FloatField,
        JSONField,
        NDArrayField,
        RGBImageField,
        TorchTensorField,
    )
    from ffcv.loader import Loader, OrderOption
    from ffcv.pipeline.compiler import Compiler
    from ffcv.writer import DatasetWriter

    fields = {
        "img": RGBImageField("raw"), "mask": NDArrayField(np.dtype("u1"), (24, 30)), "y": FloatField(),
        "meta": JSONField(), "id": BytesField(), "t": TorchTensorField(torch.float16, (2, 3)),
    }  # fmt: skip
    DatasetWriter(f"{out}/stock.beton", fields, page_size=1 << 21, num_workers=1).from_indexed_dataset(samples())
    Compiler.set_enabled(False)
    loader = Loader(f"{out}/ours.beton", 5, num_workers=1, order=OrderOption.SEQUENTIAL, drop_last=False)
    names, found = list(loader.reader.handlers), []
    for batch in loader:
        found += [dict(zip(names, [np.array(c[row]) for c in batch], strict=True)) for row in range(len(batch[0]))]
    found = found[: loader.reader.num_samples]  # its bytes decoder gives whole batches
    columns = {name: np.stack([row[name] for row in found]) for name in names}
    columns["y"] = columns["y"][:, 0]
    columns["meta"] = np.array([json.dumps(JSONField.unpack(torch.from_numpy(meta))) for meta in columns["meta"]])
    np.savez(Path(out) / "ours.npz", **columns)
