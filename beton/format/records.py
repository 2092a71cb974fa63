"""The records that the tables of a .beton are made of (FFCV's format, version 2), little-endian.

Layout of the file: header, field descriptors, one metadata record a sample, payloads none of which crosses a page
(FFCV begins with them at the next page), allocation table (sample, address, size of each payload) to the end.
"""

import numpy as np

VERSION = 2
HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ],
    align=True,
)
DESCRIPTOR = np.dtype([("type_id", "<u1"), ("name", ("<u1", 16)), ("arguments", ("<u1", 1024))], align=True)
ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])
LONGEST_NAME = 16  # bytes of a field's name

_SMALLEST_PAGE, LARGEST_PAGE = 8 << 20, 1 << 31


def metadata_record(records: list[np.dtype]) -> np.dtype:
    """The record that describes one sample whose fields have these records, as f0, f1, ..."""
    return np.dtype([(f"f{i}", record) for i, record in enumerate(records)], align=True)


def page_size(largest_payload: int) -> int:
    """A power of two (bytes) in which so many bytes fit; FFCV's default of 8 MiB where that is enough."""
    return min(LARGEST_PAGE, max(_SMALLEST_PAGE, 1 << max(largest_payload - 1, 1).bit_length()))
