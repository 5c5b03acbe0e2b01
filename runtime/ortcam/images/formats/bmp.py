"""The header of a BMP file, and whether its runs are complete."""

import functools
import struct

import numpy as np
from numpy.typing import NDArray

from ortcam.images.formats.header import DamagedError, Header, RefusedError

__all__ = ["walk_bmp"]

_BITS = {1, 4, 8, 16, 24, 32}
_BITFIELDS = {3, 6}
_BGR = (0xFF0000, 0xFF00, 0xFF)
_BYTES = {0xFF, 0xFF00, 0xFF0000, 0xFF000000}  # OpenCV heeds them where the header has room for a mask of alpha
_RUNS = {1: 8, 2: 4}  # bits of a pixel
_MOST_RUNS = 1 << 22
_PACKED = {4: "JPEG", 5: "PNG"}


def walk_bmp(data: bytes) -> Header:
    """Walk a BMP file to its end, without decoding it.

    Raises:
        DamagedError: it has no pixels.
        RefusedError: a variety that OpenCV does not read as Pillow does.
        struct.error: the file ends before its image does.
    """
    (size,) = struct.unpack_from("<I", data, 14)
    compression = 0
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    else:
        width, height, _, bits = struct.unpack_from("<iiHH", data, 18)
        compression = struct.unpack_from("<I", data, 30)[0] if size >= 40 else 0
    height = abs(height)  # a negative one means top row first
    if compression in _PACKED:
        raise RefusedError(f"a {_PACKED[compression]} inside a BMP file")
    if bits not in _BITS:
        raise RefusedError(f"a BMP file of {bits} bits per pixel", ", ".join(map(str, sorted(_BITS))))
    if width < 1 or height < 1:
        raise DamagedError(f"its header says {width} x {height} pixels")
    masks = struct.unpack_from("<III", data, 54) if compression in _BITFIELDS else ()
    if bits == 32 and masks and masks != _BGR and not (size >= 56 and set(masks) <= _BYTES):
        named = ", ".join(f"{mask:#x}" for mask in masks)
        raise RefusedError(f"a BMP file of the colour masks {named}", ", ".join(f"{mask:#x}" for mask in _BGR))
    levels = None
    if bits == 16:
        levels = tuple(_spread(used) for used in ((5, 6, 5) if masks[1:2] == (0x7E0,) else (5, 5, 5)))
    check = None
    if compression in _RUNS:
        (start,) = struct.unpack_from("<I", data, 10)
        check = functools.partial(_check_runs, data, start, _RUNS[compression], width, height)
    return Header(kind="BMP", width=width, height=height, levels=levels, check=check)


def _check_runs(data: bytes, start: int, bits: int, width: int, height: int) -> str:
    """What is wrong with the runs of a BMP, which OpenCV leaves black where they are missing: "" for nothing.

    Millions of runs are believed, since looking at all would take seconds.
    """
    position, column, row = start, 0, 0
    for _ in range(_MOST_RUNS):
        if row >= height or (row == height - 1 and column >= width):
            return ""
        pair = data[position : position + 2]
        position += 2
        if len(pair) < 2 or pair == b"\0\1":
            break
        count, value = pair
        if count:
            column += count
        elif value == 0:
            column, row = 0, row + 1
        elif value == 2:
            move = data[position : position + 2]
            if len(move) < 2:
                break
            column, row, position = column + move[0], row + move[1], position + 2
        else:
            column += value
            position += (-(-value * bits // 8) + 1) // 2 * 2
    else:
        return ""
    return f"its runs end in row {row + 1} of {height}"


def _spread(used: int) -> NDArray[np.uint8]:
    """Bytes of which OpenCV has filled the upper bits alone, so that white would be grey: uint8 [256], as Pillow."""
    white = 256 - (1 << 8 - used)
    return (np.arange(256) * 255 // white).clip(0, 255).astype(np.uint8)
