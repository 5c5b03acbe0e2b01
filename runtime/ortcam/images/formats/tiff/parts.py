"""The bytes of strips and tiles of a TIFF file, decompressed: by zlib, or by the libtiff that is inside OpenCV.

libtiff is given a small TIFF file of one grey channel, made here, whose strips are the compressed parts as they are. So
whatever the samples of the file are, OpenCV sees bytes, and the rest (byte order, predictor, bands) is done in numpy.
"""

import struct
import zlib
from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ortcam.images.formats.decoder_output import listening
from ortcam.images.formats.header import DamagedError, RefusedError

__all__ = ["DEFLATE", "LZW", "NONE", "PACKBITS", "decompressed", "parts_at_once"]

NONE: Final = 1
LZW: Final = 5
DEFLATE: Final = (8, 32946)
PACKBITS: Final = 32773

_GROUP: Final = 1 << 24  # bytes that parts are decompressed to at a time, where one alone has not more
_LONGEST: Final = 1 << 20  # pixels of a side, as OpenCV has it
_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_TRIED: Final = 1 << 14  # heights that may divide a part, which are its own rows for any part of a usual size
_ZERO: Final = b"\0\0"  # of PackBits: a byte of 0


def parts_at_once(size: int, compression: int) -> int:
    """How many parts that decompress to so many bytes each are to be decompressed in one call."""
    most = max(_GROUP // size, 1)
    if compression in {LZW, PACKBITS}:
        picture = _grey_of(size)
        rows = max(_rows_of(-(-size // 2)), picture[1] if picture else 1)
        return max(min(most, _LONGEST // rows), 1)
    return most


def decompressed(
    parts: Sequence[memoryview], size: int, compression: int, *, reverse_bits: bool = False
) -> NDArray[np.uint8]:
    """Decompress parts of a TIFF file that have equally many bytes.

    Args:
        parts: strips or tiles as the file has them, at most `parts_at_once`.
        size: bytes of each when it is decompressed.
        compression: number of it in TIFF: none, LZW, deflate or PackBits.
        reverse_bits: whether the file fills bytes from their lowest bit (FillOrder 2).

    Returns:
        uint8 [parts, size], writable.

    Raises:
        DamagedError: one of them is damaged, or has fewer bytes.
        RefusedError: they are too large for OpenCV.
    """
    given: Sequence[bytes | memoryview] = parts
    if reverse_bits:
        given = [bytes(part).translate(_REVERSED) for part in parts]
    if compression in {LZW, PACKBITS}:
        return _by_libtiff(given, size, compression)
    made = np.empty((len(given), size), np.uint8)
    for index, part in enumerate(given):
        if compression in DEFLATE:
            part = _inflated(part, size)  # noqa: PLW2901
        if len(part) < size:
            raise DamagedError("a strip or tile ends before its pixels do")
        made[index] = np.frombuffer(part, np.uint8, size)
    return made


def _inflated(part: bytes | memoryview, size: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(part, size)
    except zlib.error as error:
        raise DamagedError(f"a strip or tile is no deflated data ({error})") from None


def _grey_of(size: int) -> tuple[int, int, int] | None:
    """Width, height and bytes per pixel of a grey picture of so many bytes, as low as its sides allow."""
    pixel = 2 - size % 2
    pixels = size // pixel
    lowest = _rows_of(pixels)
    for height in range(lowest, min(lowest + _TRIED, _LONGEST)):
        if pixels % height == 0:
            return pixels // height, height, pixel
    return None


def _rows_of(pixels: int) -> int:
    return -(-pixels // _LONGEST)


def _by_libtiff(parts: Sequence[bytes | memoryview], size: int, compression: int) -> NDArray[np.uint8]:
    step = 2 * _rows_of(-(-size // 2))  # a multiple of it has the sides of a picture
    picture = _grey_of(size)
    # OpenCV says that pixels are missing only where samples have 16 bits.
    if compression == PACKBITS and (size % 2 or picture is None):
        more = -size % step
        padded = _by_libtiff([bytes(part) + _ZERO * more for part in parts], size + more, compression)
        return padded[:, :size]
    if picture is None:
        raise RefusedError(f"a TIFF file with strips or tiles of {size} bytes, which OpenCV does not decompress")
    if size % 2 and size > step:
        _by_libtiff(parts, size - size % step, compression)
    width, height, pixel = picture
    file = _grey_tiff(parts, width, height, pixel, compression)
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH
    try:
        found, _ = listening(lambda: cv2.imdecode(np.frombuffer(file, np.uint8), flags))
    except cv2.error:
        found = None
    wanted = (height * len(parts), width)
    if found is None or found.shape != wanted or found.dtype.itemsize != pixel:
        raise DamagedError("a strip or tile is damaged, or ends before its pixels do")
    pixels: NDArray[Any] = np.ascontiguousarray(found)
    return pixels.view(np.uint8).reshape(len(parts), size)


def _grey_tiff(parts: Sequence[bytes | memoryview], width: int, height: int, pixel: int, compression: int) -> bytearray:
    """A TIFF file of grey pixels of 1 or 2 bytes, whose strips of `height` rows are these parts."""
    count = len(parts)
    lengths = [len(part) for part in parts]
    entries = 10
    values = 8 + 2 + 12 * entries + 4
    start = values + (8 * count if count > 1 else 0)
    offsets = (start + np.cumsum([0, *lengths[:-1]])).tolist()
    tags = (
        (256, 4, 1, width),
        (257, 4, 1, height * count),
        (258, 3, 1, 8 * pixel),
        (259, 3, 1, compression),
        (262, 3, 1, 1),
        (273, 4, count, values if count > 1 else offsets[0]),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, count, values + 4 * count if count > 1 else lengths[0]),
        (339, 3, 1, 1),
    )
    file = bytearray(b"II\x2a\0" + struct.pack("<IH", 8, entries))
    for tag in tags:
        file += struct.pack("<HHII", *tag)
    file += bytes(4)
    if count > 1:
        file += struct.pack(f"<{2 * count}I", *offsets, *lengths)
    for part in parts:
        file += part
    return file
