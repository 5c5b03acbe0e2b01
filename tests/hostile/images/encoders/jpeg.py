"""JPEG: flat pictures in one scan or many."""

import struct
from collections.abc import Sequence

from tests.hostile.images.bomb import (
    SIDE,
)


def jpeg_segment(marker: int, body: bytes) -> bytes:
    """A marker with its segment."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg_frame(
    width: int, height: int, components: int, *, sof: int = 0xC0, bits: int = 8, sampling: int = 0x11
) -> bytes:
    """SOF; `sampling` is of the first component, the others have 1 x 1."""
    body = struct.pack(">BHHB", bits, height, width, components)
    body += b"".join(bytes([number, sampling if number == 1 else 0x11, 0]) for number in range(1, components + 1))
    return jpeg_segment(sof, body)


def jpeg_tables(symbols: bytes = b"\0") -> bytes:
    """Quantization of 1, and Huffman codes: of a DC difference of 0 and of the given AC symbols, the first is bit 0."""
    counts = bytes([1] + [0] * 15) if len(symbols) == 1 else bytes([1, 1] + [0] * 14)
    tables = jpeg_segment(0xDB, b"\0" + b"\1" * 64) + jpeg_segment(0xC4, b"\x00" + bytes([1] + [0] * 15) + b"\0")
    return tables + jpeg_segment(0xC4, b"\x10" + counts + symbols)


def jpeg_scan(components: Sequence[int], first: int, last: int, bits: int, data: bytes) -> bytes:
    """SOS of components with a band of coefficients, and the bits that follow it."""
    body = bytes([len(components)]) + b"".join(bytes([number, 0]) for number in components) + bytes([first, last, bits])
    return jpeg_segment(0xDA, body) + data


def blocks_of(width: int, height: int) -> int:
    """Blocks of 8 x 8."""
    return -(-width // 8) * -(-height // 8)


def jpeg(
    width: int = SIDE,
    height: int = SIDE,
    components: int = 3,
    *,
    sof: int = 0xC0,
    bits: int = 8,
    sampling: int = 0x11,
    before: bytes = b"",
    data: bytes | None = None,
) -> bytes:
    """A flat JPEG of one scan: two zero bits per block."""
    if data is None:
        units = -(-width // (8 * (sampling >> 4))) * -(-height // (8 * (sampling & 15)))
        blocks = units * ((sampling >> 4) * (sampling & 15) + components - 1)
        data = bytes(-(-2 * blocks // 8))
    frame = jpeg_frame(width, height, components, sof=sof, bits=bits, sampling=sampling)
    last = 0 if sof in {0xC2, 0xCA} else 63
    scan = jpeg_scan(range(1, components + 1), 0, last, 0, data)
    return b"\xff\xd8" + before + jpeg_tables() + frame + scan + b"\xff\xd9"


def progressive_jpeg(
    width: int,
    height: int,
    components: int,
    scans: int,
    *,
    refining: bool = False,
    sof: int = 0xC2,
    empty: bool = False,
) -> bytes:
    """A flat JPEG of many scans of all AC coefficients, each a run of ends of bands; `empty` scans have no bits."""
    blocks = blocks_of(width, height)
    run = b"" if empty else bytes(-(-15 * -(-blocks // (1 << 14)) // 8))  # one code, the bit 0, and 14 bits of length
    first = jpeg_scan(range(1, components + 1), 0, 0, 0, b"" if empty else bytes(-(-blocks * components // 8)))
    parts = [b"\xff\xd8", jpeg_tables(b"\xe0"), jpeg_frame(width, height, components, sof=sof), first]
    for index in range(scans - 1):
        bits = 0x10 if refining and index >= components else 0x01 if refining else 0
        parts.append(jpeg_scan([index % components + 1], 1, 63, bits, run))
    return b"".join(parts) + b"\xff\xd9"


def sequential_jpeg(width: int, height: int, components: int, sampling: int) -> bytes:
    """A flat JPEG of one scan per component; the first component is sampled as said, the others once."""
    frame = jpeg_frame(width, height, components, sampling=sampling)
    blocks = blocks_of(width, height), blocks_of(-(-width // (sampling >> 4)), -(-height // (sampling & 15)))
    scans = b"".join(
        jpeg_scan([number], 0, 63, 0, bytes(-(-2 * blocks[number > 1] // 8))) for number in range(1, components + 1)
    )
    return b"\xff\xd8" + jpeg_tables() + frame + scans + b"\xff\xd9"
