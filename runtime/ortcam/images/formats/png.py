"""The header of a PNG file: its chunks, which are checked, and how much its samples inflate to."""

import functools
import struct
import zlib
from collections.abc import Iterator, Sequence

from ortcam.images.formats.deflate import inflated_size
from ortcam.images.formats.header import MOST_CHUNKS, DamagedError, Header, Parts, exif_orientation

__all__ = ["walk_png"]

_DEPTHS = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}
# All that the pixels are made of. The others OpenCV does not apply, libpng complains of many that are in use, tRNS
# would mix colours, and those of an animation would hide the image that stands for it.
_KEPT = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PALETTE = 3 << 8  # bytes
_GREY, _ALPHA = {0, 4}, {4, 6}
_PASSES = ((8, 8, 0, 0), (8, 8, 4, 0), (4, 8, 0, 4), (4, 4, 2, 0), (2, 4, 0, 2), (2, 2, 1, 0), (1, 2, 0, 1))
_SURPLUS = 1 << 29  # bytes that libpng inflates in about a second
_TOLERATED = 1 << 20  # bytes behind the pixels, which some encoders write
_MOST_INFLATED = 1032  # bytes from one of deflate


def walk_png(data: bytes) -> Header:
    """Walk a PNG file to its end, without decoding it.

    Raises:
        DamagedError: a chunk is broken, missing or too long.
        RefusedError: more chunks than an image has.
        struct.error: the file ends before its image does.
    """
    width = height = bits = colour = interlaced = 0
    orientation: int | None = None
    kept, samples = [(0, 8)], []
    for kind, start, end in _chunks(data):
        if kind == b"IHDR":
            width, height, bits, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, start + 8)
            if not width or not height or bits not in _DEPTHS.get(colour, ()):
                raise DamagedError(f"its header says {width} x {height} pixels, {bits} bits, colour type {colour}")
        elif kind == b"eXIf" and orientation is None:
            orientation = exif_orientation(data[start + 8 : end - 4])
        elif kind == b"PLTE" and end - start > _PALETTE + 12:
            raise DamagedError(f"its palette has {end - start - 12} bytes")
        elif kind == b"IDAT":
            samples.append((start + 8, end - 4))
        if kind in _KEPT:
            if kept[-1][1] == start:
                kept[-1] = kept[-1][0], end
            else:
                kept.append((start, end))
    bits_a_pixel = bits * _SAMPLES[colour]
    needed = _bytes(width, height, bits_a_pixel, interlaced=bool(interlaced))
    whole = memoryview(data)
    return Header(
        kind="PNG",
        width=width,
        height=height,
        orientation=orientation or 1,
        payload=None if len(kept) == 1 else b"".join([whole[begin:stop] for begin, stop in kept]),
        working=4 * width * max(bits_a_pixel // 8, 1),
        check=functools.partial(_check_surplus, data, samples, needed),
        deep=bits == 16,
        grey=colour in _GREY,
        alpha=colour in _ALPHA,
        white_unknown=bits == 16,
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, beginning and end of each chunk, its length and checksum included, up to the one that ends the image."""
    start = 8
    parts = Parts(MOST_CHUNKS, "chunks")
    kind = b""
    while kind != b"IEND":
        parts.count()
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + length + 12
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        if kind[:1].isupper() and zlib.crc32(memoryview(data)[start + 4 : end - 4]) != checksum:
            raise DamagedError(f"the checksum of its {kind!r} chunk does not match")
        if (kind == b"IHDR") != (start == 8):
            raise DamagedError("IHDR is not its first chunk, or not the only one")
        if kind[:1].isupper() and kind not in _KEPT:
            raise DamagedError(f"its chunk {kind!r} is unknown, but marked as needed")
        yield kind, start, end
        start = end


def _bytes(width: int, height: int, bits: int, *, interlaced: bool) -> int:
    """Bytes of the lines of a PNG of so many bits per pixel; each has one for its filter."""
    total = 0
    for across, down, left, top in _PASSES if interlaced else ((1, 1, 0, 0),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        total += rows * (1 + -(-columns * bits // 8)) if columns > 0 and rows > 0 else 0
    return total


def _check_surplus(data: bytes, parts: Sequence[tuple[int, int]], needed: int) -> str:
    """Find out whether the samples of a PNG go on far behind its pixels, which libpng would inflate to the end.

    Raises:
        DamagedError: they do.
    """
    if sum(end - begin for begin, end in parts) * _MOST_INFLATED <= needed + _SURPLUS:
        return ""
    try:
        size = inflated_size((memoryview(data)[begin:end] for begin, end in parts), needed + _TOLERATED)
    except zlib.error:
        return ""  # libpng finds that, too
    if size > needed + _TOLERATED:
        raise DamagedError("its pixel data are longer than its pixels need")
    return ""
