"""Stock FFCV's writer, without a line of ours: in a process of its own, for it can hang.

    python benchmarks/stock_writer.py FOLDER OUT.beton MODE MAX_RESOLUTION QUALITY WORKERS   # MAX_RESOLUTION 0: none

Prints the seconds that the writing took, and the number of photos. against_ffcv.py runs it.
"""

import json
import os
import sys
import time

MODES = ("raw", "jpg", "smart", "proportion")


def arguments(argv: list[str]) -> tuple:
    """Those of `main`; ends with status 2 where they are wrong."""
    try:
        folder, path, mode, max_resolution, quality, workers = argv
        numbers = int(max_resolution), int(quality), int(workers)
    except ValueError:
        sys.exit(_wrong(f"{len(argv)} words, or words in place of numbers"))
    for number, low, high in zip(numbers, (0, 1, 1), (65535, 100, 1024), strict=True):
        if not low <= number <= high:
            sys.exit(_wrong(f"{number} is not between {low} and {high}"))
    if mode not in MODES:
        sys.exit(_wrong(f"unknown mode '{mode}'"))
    if not os.path.isdir(folder) or not os.path.isdir(os.path.dirname(path) or ".") or os.path.isdir(path):
        sys.exit(_wrong(f"there is no folder {folder}, or {path} cannot be written"))
    return folder, path, mode, *numbers


def _wrong(what: str) -> int:
    print(f"error: {what}; see the head of stock_writer.py", file=sys.stderr)
    return 2


def main(folder: str, path: str, mode: str, max_resolution: int, quality: int, workers: int) -> None:
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter
    from torchvision.datasets import ImageFolder

    photos = ImageFolder(folder)  # opens with Pillow and converts to RGB
    image = RGBImageField(write_mode=mode, max_resolution=max_resolution or None, jpeg_quality=quality)
    writer = DatasetWriter(path, {"image": image, "label": IntField()}, num_workers=workers)
    started = time.perf_counter()
    writer.from_indexed_dataset(photos)
    print(json.dumps({"seconds": time.perf_counter() - started, "num_samples": len(photos)}))


if __name__ == "__main__":
    main(*arguments(sys.argv[1:]))
