"""The header of an AVIF file: its boxes (ISO/IEC 14496-12, 23008-12) and items.

OpenCV decodes the primary image, and leaves its rotation and mirroring to the caller.
"""

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ortcam.images.formats.av1 import Av1Stream, read_stream
from ortcam.images.formats.header import DamagedError, Header, Parts, RefusedError, levels

__all__ = ["walk_avif"]

# EXIF's orientation that does what a rotation by 90 degrees against the clock, taken so many times, and then a
# mirroring does: none, top and bottom swapped, left and right swapped.
_ORIENTATIONS: Final = {
    (0, None): 1, (1, None): 8, (2, None): 3, (3, None): 6,
    (0, 0): 4, (1, 0): 5, (2, 0): 2, (3, 0): 7,
    (0, 1): 2, (1, 1): 7, (2, 1): 4, (3, 1): 5,
}  # fmt: skip
_MOST_BOXES: Final = 10_000
_MOST_ITEMS: Final = 4096  # and extents of all items together
# Bytes per pixel that libaom needs beside its frames, measured with OpenCV 5.0 (libavif 1.4): what it notes of each
# block of 4 x 4 pixels.
_NOTES: Final = 13.5
_LONGEST_PROPERTY: Final = 64  # bytes that are looked at, of width and height, rotation or colours
_BORDER: Final = 256  # pixels around a frame, and for rounding its sides up, on each axis


@dataclass
class _Meta:
    """What the boxes say: items by number, and the properties that they share."""

    primary: int = 0
    kinds: dict[int, bytes] = field(default_factory=dict)
    places: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)  # method, offset, length
    properties: list[tuple[bytes, memoryview]] = field(default_factory=list)
    belongs: dict[int, list[int]] = field(default_factory=dict)
    stored: memoryview = field(default_factory=lambda: memoryview(b""))


def walk_avif(data: bytes) -> Header:
    """The header of the primary image of an AVIF file, or of the first image of an animated one.

    Raises:
        DamagedError: boxes or items do not fit each other.
        RefusedError: an image of several tiles, or of more parts than an image has.
        struct.error: the file ends before its boxes or the image do.
    """
    boxes = Parts(_MOST_BOXES, "boxes")
    meta = next((body for kind, body in list(_boxes(memoryview(data), boxes)) if kind == b"meta"), None)
    if meta is None:
        raise RefusedError("an animated AVIF file without a still image")
    items = _read_meta(meta[4:], len(data), boxes)
    kind = items.kinds.get(items.primary)
    if kind == b"grid":
        raise RefusedError("an AVIF file whose image is made of tiles (a grid)")
    if kind != b"av01":
        raise DamagedError(f"its primary item is {kind!r}, not an AV1 image")
    properties = _properties(items)
    if b"ispe" not in properties:
        raise DamagedError("its primary item has no width and height")
    width, height = struct.unpack_from(">II", properties[b"ispe"], 4)
    stream, others = _streams(data, items)
    turns = properties.get(b"irot", b"\0")[0] & 3
    axis = properties[b"imir"][0] & 1 if b"imir" in properties else None
    return Header(
        kind="AVIF",
        width=width,
        height=height,
        decoded_pixels=max(each.width * each.height for each in (stream, *others)),
        orientation=_ORIENTATIONS[turns, axis],
        # With another brand libavif would decode the frames of an animation instead of the image looked at here.
        payload=None if data[8:12] == b"avif" else b"".join([data[:8], b"avif", memoryview(data)[12:]]),
        working=_working(stream, others),
        deep=stream.bits > 8,
        levels=_levels(stream, properties.get(b"colr", b"")),
    )


def _working(stream: "Av1Stream", others: Sequence["Av1Stream"]) -> int:
    """Bytes that OpenCV and libavif need beside the decoded image, at most."""
    total = 0
    for each in (stream, *others):
        sample = 1 if each.bits == 8 else 2
        area = (each.width + _BORDER) * (each.height + _BORDER)
        # The frames that later ones refer to, and one more where grain is laid over it.
        total += math.ceil(area * (_NOTES + (each.frames + each.grain) * each.planes * sample))
    pixels, sample = stream.width * stream.height, 1 if stream.bits == 8 else 2
    if others:  # alpha comes as a fourth channel first
        return total + 4 * sample * pixels
    return total + (sample * pixels if stream.grey else 0)


def _levels(stream: "Av1Stream", colour: bytes) -> tuple[NDArray[np.uint8], ...] | None:
    """What the samples that OpenCV gives stand for; it leaves them at their depth, and grey at its range."""
    full = colour[10] >> 7 if colour.startswith(b"nclx") and len(colour) > 10 else stream.full_range
    if stream.grey and not full:
        unit = 1 << stream.bits - 8  # black is at 16 of 255, white at 235
        values = np.arange(1 << max(stream.bits, 8)) - 16 * unit
        limited = np.rint(values * (255 / (219 * unit))).clip(0, 255).astype(np.uint8)
        return (limited,) if stream.bits == 8 else (np.pad(limited, (0, (1 << 16) - len(limited)), mode="edge"),)
    return None if stream.bits == 8 else (levels((1 << stream.bits) - 1, 1 << 16),)


def _boxes(data: memoryview, boxes: Parts) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and content of each box, which is not copied."""
    position = 0
    while position < len(data):
        boxes.count()
        size, kind = struct.unpack_from(">I4s", data, position)
        start = position + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, start)
            start += 8
        end = position + size if size else len(data)
        if end < start:
            raise DamagedError(f"its box {kind!r} has {size} bytes")
        if end > len(data):
            raise struct.error
        yield kind, data[start:end]
        position = end


def _read_meta(data: memoryview, size: int, boxes: Parts) -> _Meta:
    items = _Meta()
    for kind, body in _boxes(data, boxes):
        version = body[0] if body else 0
        if kind == b"pitm":
            (items.primary,) = struct.unpack_from(">I" if version else ">H", body, 4)
        elif kind == b"iinf":
            for entry, info in _boxes(body[8 if version else 6 :], boxes):
                if entry == b"infe" and bytes(info[:1]) in {b"\2", b"\3"}:
                    number, _, item = struct.unpack_from(">HH4s" if info[0] == 2 else ">IH4s", info, 4)
                    items.kinds[number] = item
        elif kind == b"iloc":
            items.places = _read_places(body, size)
        elif kind == b"idat":
            items.stored = body
        elif kind == b"iprp":
            for entry, content in _boxes(body, boxes):
                if entry == b"ipco":
                    items.properties = list(_boxes(content, boxes))
                elif entry == b"ipma":
                    items.belongs.update(_read_associations(content))
    return items


class _Reader:
    """Big-endian numbers, one after the other."""

    def __init__(self, data: memoryview, position: int = 0) -> None:
        self._data, self._position = data, position

    def take(self, size: int) -> int:
        end = self._position + size
        if end > len(self._data):
            raise struct.error
        number = int.from_bytes(self._data[self._position : end])
        self._position = end
        return number


def _read_places(body: memoryview, size: int) -> dict[int, list[tuple[int, int, int]]]:
    """Where each item lies: `iloc`.

    Raises:
        DamagedError: the items are longer than the file together, which is of `size` bytes.
        RefusedError: they are in too many pieces.
    """
    version = body[0] if body else 0
    read = _Reader(body, 4)
    sizes = read.take(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    places: dict[int, list[tuple[int, int, int]]] = {}
    parts, total = Parts(_MOST_ITEMS, "items and pieces of items"), 0
    for _ in range(read.take(2 if version < 2 else 4)):
        parts.count()
        number = read.take(2 if version < 2 else 4)
        method = read.take(2) & 15 if version else 0
        read.take(2)  # an index of the file that holds the item: this one
        base = read.take(base_size)
        extents = []
        for _ in range(read.take(2)):
            if version:
                read.take(index_size)
            parts.count()
            offset, length = read.take(offset_size), read.take(length_size)
            total += length
            extents.append((method, base + offset, length))
        if len(extents) > 1 and not all(length for _, _, length in extents):
            raise DamagedError(f"its item {number} has pieces without a length")
        places[number] = extents
    if total > size:
        raise DamagedError(f"its items have {total} bytes together, more than the file")
    return places


def _read_associations(body: memoryview) -> dict[int, list[int]]:
    """Indices of the properties of each item: `ipma`."""
    version, flags = body[0] if body else 0, body[3] if len(body) > 3 else 0
    read = _Reader(body, 4)
    belongs: dict[int, list[int]] = {}
    parts = Parts(_MOST_ITEMS, "items")
    for _ in range(read.take(4)):
        parts.count()
        number = read.take(4 if version else 2)
        # The highest bit says whether a reader must know the property.
        belongs[number] = [read.take(2) & 0x7FFF if flags & 1 else read.take(1) & 0x7F for _ in range(read.take(1))]
    return belongs


def _properties(items: _Meta) -> dict[bytes, bytes]:
    """The properties of the primary item by kind; the first of each counts."""
    found: dict[bytes, bytes] = {}
    for index in items.belongs.get(items.primary, ()):
        if not 1 <= index <= len(items.properties):
            raise DamagedError(f"its property {index} is missing")
        kind, body = items.properties[index - 1]
        if body:
            found.setdefault(kind, bytes(body[:_LONGEST_PROPERTY]))
    return found


def _streams(data: bytes, items: _Meta) -> tuple[Av1Stream, list[Av1Stream]]:
    """The stream of the primary image, and those of all other AV1 images of the file, such as its alpha."""
    primary: Av1Stream | None = None
    others: list[Av1Stream] = []
    for number in (number for number, kind in items.kinds.items() if kind == b"av01"):
        stream = read_stream(_content(data, items, number), number)
        if number == items.primary:
            primary = stream
        else:
            others.append(stream)
    if primary is None:
        raise DamagedError("its primary item is missing")
    return primary, others


def _content(data: bytes, items: _Meta, number: int) -> memoryview:
    parts = []
    for method, offset, length in items.places.get(number, ()):
        source = {0: memoryview(data), 1: items.stored}.get(method)
        if source is None:
            raise DamagedError(f"its item {number} is stored by method {method}")
        if offset + length > len(source):
            raise struct.error
        parts.append(source[offset : offset + length] if length else source[offset:])
    return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
