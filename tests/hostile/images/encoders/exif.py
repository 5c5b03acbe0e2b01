"""EXIF, which is a TIFF without pixels."""

import struct
from collections.abc import Sequence


def exif(entries: Sequence[tuple[int, int, int, int]], values: bytes = b"", *, following: int = 0) -> bytes:
    """A directory of (tag, type, count, value or place) behind `values`, which start at 8."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    start = 8 + len(values)
    return (
        b"II*\0"
        + struct.pack("<I", start)
        + values
        + struct.pack("<H", len(entries))
        + packed
        + struct.pack("<I", following)
    )


def exif_of_many(entries: int, count: int) -> bytes:
    """Orientation, many times and with many values, all of them in the same place."""
    values = bytes(2 * count) if count > 2 else b""
    return exif([(274, 3, count, 8 if count > 2 else 0)] * entries, values)
