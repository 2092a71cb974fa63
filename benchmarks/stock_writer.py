"""Stock FFCV's writer, without a line of ours: in a process of its own, for it can hang.

    python benchmarks/stock_writer.py FOLDER OUT.beton MODE MAX_RESOLUTION QUALITY WORKERS   # MAX_RESOLUTION 0: none

Prints the seconds that the writing took, and the number of photos. against_ffcv.py runs it.
"""

import json
import sys
import time


def main(folder: str, path: str, mode: str, max_resolution: str, quality: str, workers: str) -> None:
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter
    from torchvision.datasets import ImageFolder

    photos = ImageFolder(folder)  # opens with Pillow and converts to RGB
    image = RGBImageField(write_mode=mode, max_resolution=int(max_resolution) or None, jpeg_quality=int(quality))
    writer = DatasetWriter(path, {"image": image, "label": IntField()}, num_workers=int(workers))
    started = time.perf_counter()
    writer.from_indexed_dataset(photos)
    print(json.dumps({"seconds": time.perf_counter() - started, "num_samples": len(photos)}))


if __name__ == "__main__":
    if len(sys.argv) != 7:
        sys.exit("error: six arguments are needed; see the head of stock_writer.py")
    main(*sys.argv[1:])
