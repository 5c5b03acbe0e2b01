"""BMP."""

import struct


def bmp(
    width: int,
    height: int,
    bits: int = 24,
    *,
    compression: int = 0,
    data: bytes = b"",
    colours: int = 0,
    start: int | None = None,
    palette: bytes = b"",
    size: int = 40,
) -> bytes:
    """A BMP of 40 bytes of header."""
    head = struct.pack("<IiiHHIIiiII", size, width, height, 1, bits, compression, len(data), 0, 0, colours, 0)
    begins = 14 + len(head) + len(palette) if start is None else start
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(palette) + len(data), 0, 0, begins) + head + palette + data
