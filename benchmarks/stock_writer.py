"""Stock FFCV's writer, without a line of ours: in a process of its own, for it can hang.

    python benchmarks/stock_writer.py FOLDER OUT.beton MODE MAX_RESOLUTION QUALITY WORKERS   # MAX_RESOLUTION 0: none

Prints the seconds that the writing took, and the number of photos. against_ffcv.py runs it.
"""

import json
import sys
import time

from ffcv.fields import IntField, RGBImageField
from ffcv.writer import DatasetWriter
from torchvision.datasets import ImageFolder


def main(folder: str, path: str, mode: str, max_resolution: int, quality: int, workers: int) -> None:
    photos = ImageFolder(folder)  # opens with Pillow and converts to RGB
    image = RGBImageField(write_mode=mode, max_resolution=max_resolution or None, jpeg_quality=quality)
    writer = DatasetWriter(path, {"image": image, "label": IntField()}, num_workers=workers)
    started = time.perf_counter()
    writer.from_indexed_dataset(photos)
    print(json.dumps({"seconds": time.perf_counter() - started, "num_samples": len(photos)}))


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:]))
