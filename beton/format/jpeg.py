"""JPEG files: which of them may be stored as they are."""

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_SOF0, _DHT, _SOS, _DQT, _DRI, _APP1, _ADOBE, _COMMENT = 0xC0, 0xC4, 0xDA, 0xDB, 0xDD, 0xE1, 0xEE, 0xFE
_SAMPLINGS = {(1, 1), (2, 1), (1, 2), (2, 2), (4, 1)}


def plain_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) of a file that every JPEG decoder reads as RGB, None for all other files.

    That is: baseline, 8 bits, YCbCr in one scan with 4:4:4, 4:2:2, 4:4:0, 4:2:0 or 4:1:1 sampling, complete
    from its first byte to its last. Only the headers are looked at: damage within the coded pixels
    is not found.
    """
    if not data.startswith(_SOI):
        return None
    at, frame, tables = 2, None, set()
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : end]
        if end < at + 4:
            return None
        if marker == _SOF0 and frame is None:
            frame = body
        elif marker == _SOS:
            # The first end marker is the end of the file: nothing is cut off, and nothing follows
            whole = end < data.find(_EOI, end) == len(data) - 2
            return _plain_frame(frame, body) if whole and tables >= {_DQT, _DHT} else None
        elif marker == _ADOBE and body.startswith(b"Adobe") and body[11:12] != b"\1":
            return None  # RGB, or who knows
        elif marker not in (_DHT, _DQT, _DRI, _COMMENT) and not 0xE0 <= marker <= 0xEF:
            return None  # not baseline, or damaged
        tables.add(marker)
        at = end
    return None


def has_exif(data: bytes) -> bool:
    """Whether there is an EXIF entry between the beginning of a JPEG file and its pixels."""
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF and data[at + 1] != _SOS:
        if data[at + 1] == _APP1 and data.startswith(b"Exif\0", at + 4):
            return True
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def baseline_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) that the frame header of a baseline JPEG tells; None for other files."""
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF and data[at + 1] != _SOS:
        if data[at + 1] == _SOF0:
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _plain_frame(frame: bytes | None, scan: bytes) -> tuple[int, int] | None:
    """The size that a frame header tells if it is one of a plain photo, all of which is in this scan."""
    if frame is None or len(frame) != 15 or len(scan) != 10 or frame[0] != 8 or frame[5] != 3:
        return None
    ids, samplings = frame[6::3], [(s >> 4, s & 15) for s in frame[7::3]]
    if ids not in (b"\1\2\3", b"\0\1\2") or scan[0] != 3 or scan[1:7:2] != ids or scan[7:] != b"\0\x3f\0":
        return None
    if samplings[0] not in _SAMPLINGS or samplings[1:] != [(1, 1), (1, 1)]:
        return None
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    return (height, width) if height and width else None


def restart_interval(width: int) -> int:
    """MCUs between two restart markers of a 4:2:0 JPEG so many pixels wide; rows of MCUs begin with one.

    The largest divisor, at most 5, of the MCUs of a row; the whole row where there is none but 1.
    """
    mcus = -(-width // 16)
    return next((n for n in (5, 4, 3, 2) if mcus % n == 0), mcus)
