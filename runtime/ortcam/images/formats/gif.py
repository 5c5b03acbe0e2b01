"""The header of a GIF file, and its first frame as a file of its own."""

import struct

from ortcam.images.formats.header import DamagedError, Header, Parts

__all__ = ["walk_gif"]

_GLOBAL = 0x80  # flags of the screen and of a frame: a palette follows
_INTERLACED = 0x40
_EXTENSION, _FRAME, _END = 0x21, 0x2C, 0x3B
_CONTROL = 0xF9
_GREYS = bytes(level for level in range(256) for _ in range(3))
_MOST_GIF_PARTS = 500_000  # frames, extensions and their blocks, most of which are of 255 bytes
_WORKING = 6  # bytes a pixel: its place in the palette, and the frame with alpha


def walk_gif(data: bytes) -> Header:
    """Walk a GIF file to its end, without decoding it.

    Raises:
        DamagedError: a block is unknown, or no frame is there.
        RefusedError: more blocks than an image has.
        struct.error: the file ends before its image does.
    """
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13
    palette = _GREYS
    if flags & _GLOBAL:
        palette, position = _palette(data, flags, position)
    transparent = 0
    frame: tuple[tuple[int, ...], bytes, tuple[int, int]] | None = None
    parts = Parts(_MOST_GIF_PARTS, "blocks")
    while True:
        parts.count()
        block = data[position]
        position += 1
        if block == _END:
            break
        if block == _EXTENSION:
            if data[position] == _CONTROL and frame is None and data[position + 2] & 1:
                transparent = data[position + 5]
            position = _data_end(data, position + 1, parts)
        elif block == _FRAME:
            *place, own = struct.unpack_from("<HHHHB", data, position)
            colours, position = palette, position + 9
            if own & _GLOBAL:
                colours, position = _palette(data, own, position)
            end = _data_end(data, position + 1, parts)
            if frame is None:
                frame = (*place, own & _INTERLACED), colours, (position, end)
            position = end
        else:
            raise DamagedError(f"one of its blocks begins with {block}, which GIF does not know")
    if frame is None:
        raise DamagedError("it holds no frame")
    (left, top, columns, rows, interlaced), colours, (start, end) = frame
    if not columns or not rows:
        raise DamagedError(f"its first frame has {columns} x {rows} pixels")
    width, height = max(width, left + columns), max(height, top + rows)
    # The first frame alone, no colour transparent, as Pillow's convert("RGB") shows it.
    screen = struct.pack("<6sHHBBB", b"GIF89a", width, height, _GLOBAL | 0x77, transparent, 0)
    descriptor = struct.pack("<BHHHHB", _FRAME, left, top, columns, rows, interlaced)
    still: list[bytes | memoryview] = [
        screen,
        colours.ljust(768, b"\0"),
        descriptor,
        memoryview(data)[start:end],
        bytes([_END]),
    ]
    return Header(kind="GIF", width=width, height=height, payload=b"".join(still), working=_WORKING * width * height)


def _palette(data: bytes, flags: int, start: int) -> tuple[bytes, int]:
    end = start + 3 * (2 << (flags & 7))
    if end > len(data):
        raise struct.error
    return data[start:end], end


def _data_end(data: bytes, position: int, parts: Parts) -> int:
    """Where a chain of blocks that ends with an empty one ends."""
    blocks = 0
    while length := data[position]:
        position += 1 + length
        blocks += 1
        if blocks > _MOST_GIF_PARTS:
            break
    parts.count(blocks)
    return position + 1
