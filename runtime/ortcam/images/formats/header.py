"""What an image says of itself before it is decoded; TIFF's directories, which are also the form of EXIF."""

import struct
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_CHUNKS", "DamagedError", "Header", "Parts", "RefusedError", "directory", "exif_orientation", "levels"]

MOST_CHUNKS = 100_000  # of PNG and WebP: a few kilobytes each in the largest files that programs write

_ORIENTATION = 274
_SIZES = {1: "B", 2: "B", 3: "H", 4: "I", 16: "Q"}  # BYTE, ASCII, SHORT, LONG, LONG8
_WHOLE_NUMBERS = frozenset({1, 3, 4})
_MOST_ENTRIES = 65535  # of a directory, as a TIFF file that is not big can have


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says before it is decoded.

    Attributes:
        kind: name of the format.
        width: columns as they are stored, before `orientation`.
        height: rows as they are stored.
        decoded_pixels: pixels that the decoder makes, where they are more than width x height (tiles at the edge).
        orientation: of EXIF, 1 to 8; the decoder leaves it to `read_image`. Anything else is no orientation.
        payload: what the decoder is given; None where that is the file as it is.
        working: bytes that the decoder needs beside the file and what it returns.
        measure: gives a closer number for `working`, where finding it takes longer than a look at the header.
        deep: samples come with 16 bits from the decoder.
        grey: the decoder gives one channel, which the image has in all three.
        alpha: the file has alpha, which the decoder drops where it is not asked for it.
        flaw: what of the pixels the file does not hold, where the decoder would fill it in without a word; else "".
        check: looks for damage that is too much to look for before the size is checked: a flaw, "", or DamagedError.
        levels: uint8 tables from the decoder's samples to 0..255, one for all channels or one each of R, G and B.
            None: samples of 8 bits stay, of 16 bits keep their upper 8.
        white_unknown: samples of 16 bits of which the file does not say how many bits are in use.
        inverted: 0 is white, and the decoder leaves it so.
        canvas: height, width, top, left of the image that the decoded frame is a part of; the rest is black.
        pixels: decodes where OpenCV does not, and gives what it would: uint8 or uint16 [height, width, 3], BGR.
    """

    kind: str
    width: int
    height: int
    decoded_pixels: int = 0
    orientation: int = 1
    payload: bytes | None = None
    working: int = 0
    measure: Callable[[], int] | None = None
    deep: bool = False
    grey: bool = False
    alpha: bool = False
    flaw: str = ""
    levels: tuple[NDArray[np.uint8], ...] | None = None
    check: Callable[[], str] | None = None
    white_unknown: bool = False
    inverted: bool = False
    canvas: tuple[int, int, int, int] | None = None
    pixels: Callable[[], NDArray[Any]] | None = None


class DamagedError(Exception):
    """The walk through a file's structure found it broken; says where."""


class RefusedError(Exception):
    """The file is whole, but of a variety that is not accepted; says which, as what follows "is"."""

    def __init__(self, what: str, accepted: str = "") -> None:
        super().__init__(f"{what}, which is not accepted" + (f" (accepted: {accepted})" if accepted else ""))


class Parts:
    """Counts the parts of a file, such as chunks, so that walking through millions of empty ones ends early."""

    def __init__(self, most: int, named: str) -> None:
        self._left, self._most, self._named = most, most, named

    def count(self, number: int = 1) -> None:
        """One more, or so many.

        Raises:
            RefusedError: they are too many.
        """
        self._left -= number
        if self._left < 0:
            raise RefusedError(f"a file of more than {self._most} {self._named}")


def levels(white: int, size: int) -> NDArray[np.uint8]:
    """What samples from 0 to size - 1 become where `white` becomes 255: uint8 [size], rounded, clipped at 255."""
    return np.rint(np.arange(size) / white * 255).clip(0, 255).astype(np.uint8)


def exif_orientation(block: bytes) -> int:
    """The orientation in an EXIF block, with or without its prefix; 1 where it is broken or says nothing."""
    try:
        # Broken metadata do not make an image unreadable.
        found = directory(block.removeprefix(b"Exif\0\0"), {_ORIENTATION: 1}, kinds={3, 4}, unique=False)
    except (DamagedError, struct.error):
        return 1
    return found.get(_ORIENTATION, (1,))[0]


def directory(
    data: bytes,
    wanted: Mapping[int, int],
    *,
    kinds: Container[int] = _WHOLE_NUMBERS,
    unique: bool = True,
    big: bool = False,
) -> dict[int, tuple[int, ...]]:
    """Tags of the first directory of a TIFF file, those that are wanted and hold integers.

    Args:
        data: of the file, from its byte order on.
        wanted: numbers of tags, and how many values each may have.
        kinds: of fields: 1 are bytes, 2 characters, 3 short and 4 long integers, 16 those of 8 bytes.
        unique: whether a tag may be there only once, and must not have more values; otherwise the last counts that has
            not more.
        big: whether it is a BigTIFF file, whose offsets have 8 bytes.

    Raises:
        DamagedError: no TIFF, or one of the tags is there twice or has more values, and may not.
        struct.error: the directory or a tag's values lie outside the data.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise DamagedError(f"its byte order is {data[:2]!r}")
    many, offset, head, step = ("Q", "Q", 8, 20) if big else ("H", "I", 4, 12)
    (start,) = struct.unpack_from(order + offset, data, head)
    if start > len(data):
        raise struct.error
    (count,) = struct.unpack_from(order + many, data, start)
    if count > _MOST_ENTRIES:
        raise DamagedError(f"its directory has {count} entries")
    first = start + struct.calcsize(order + many)
    tags: dict[int, tuple[int, ...]] = {}
    for entry in range(first, first + step * count, step):
        tag, kind, number = struct.unpack_from(order + "HH" + offset, data, entry)
        if tag not in wanted or kind not in kinds or not number:
            continue
        if tag in tags and unique:
            raise DamagedError(f"it has tag {tag} twice")
        if number > wanted[tag]:
            if not unique:
                continue
            raise DamagedError(f"its tag {tag} has {number} values, more than {wanted[tag]}")
        size = struct.calcsize(order + _SIZES[kind]) * number
        at = entry + step - struct.calcsize(order + offset)
        if size > struct.calcsize(order + offset):
            (at,) = struct.unpack_from(order + offset, data, at)
        if at + size > len(data):  # before the format string of that many values is made
            raise struct.error
        tags[tag] = struct.unpack_from(f"{order}{number}{_SIZES[kind]}", data, at)
    return tags
