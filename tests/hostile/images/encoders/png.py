"""PNG: black pictures of any depth, and chunks."""

import struct
import zlib

from tests.hostile.images.bomb import (
    deflated,
)

PNG = b"\x89PNG\r\n\x1a\n"


_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int, bits: int, colour: int, interlaced: int = 0) -> bytes:
    """IHDR."""
    return png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced))


def png(
    width: int,
    height: int,
    bits: int = 8,
    colour: int = 2,
    *,
    interlaced: int = 0,
    filter_kind: int = 0,
    before: bytes = b"",
    pixels: bytes | None = None,
) -> bytes:
    """A black PNG; `before` are chunks in front of the pixels, `pixels` their chunks."""
    depth = bits * _CHANNELS[colour]
    if pixels is None and interlaced:
        count = 0
        for top, left, down, across in _ADAM7:
            rows, columns = -(-(height - top) // down), -(-(width - left) // across)
            count += rows * (1 + (columns * depth + 7) // 8) if rows > 0 and columns > 0 else 0
        pixels = png_chunk(b"IDAT", deflated(b"\0", count))
    elif pixels is None:
        line = bytes([filter_kind]) + bytes((width * depth + 7) // 8)
        pixels = png_chunk(b"IDAT", deflated(line, height))
    palette = png_chunk(b"PLTE", bytes(768)) if colour == 3 else b""
    return (
        PNG + png_header(width, height, bits, colour, interlaced) + palette + before + pixels + png_chunk(b"IEND", b"")
    )
