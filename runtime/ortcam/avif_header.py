"""The header of an AVIF file: its boxes (ISO/IEC 14496-12, 23008-12) and the sequence headers of its AV1 pictures.

OpenCV decodes the primary picture, and leaves its rotation and mirroring to the caller.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ortcam.image_header import DamagedError, Header, RefusedError, levels

__all__ = ["walk_avif"]

# EXIF's orientation that does what a rotation by 90 degrees against the clock, taken so many times, and then a
# mirroring does: none, top and bottom swapped, left and right swapped.
_ORIENTATIONS: Final = {
    (0, None): 1, (1, None): 8, (2, None): 3, (3, None): 6,
    (0, 0): 4, (1, 0): 5, (2, 0): 2, (3, 0): 7,
    (0, 1): 2, (1, 1): 7, (2, 1): 4, (3, 1): 5,
}  # fmt: skip
_SEQUENCE_HEADER: Final = 1  # an OBU's type


@dataclass
class _Meta:
    """What the boxes say: items by number, and the properties that they share."""

    primary: int = 0
    kinds: dict[int, bytes] = field(default_factory=dict)
    places: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)  # method, offset, length
    properties: list[tuple[bytes, bytes]] = field(default_factory=list)
    belongs: dict[int, list[int]] = field(default_factory=dict)
    stored: bytes = b""


def walk_avif(data: bytes) -> Header:
    """The header of the primary picture of an AVIF file, or of the first picture of an animated one.

    Raises:
        DamagedError: boxes or items do not fit each other.
        RefusedError: a picture of several tiles.
        struct.error: the file ends before its boxes or the picture do.
    """
    meta = next((body for kind, body in list(_boxes(data)) if kind == b"meta"), None)
    if meta is None:
        raise RefusedError("an animated AVIF file without a still picture")
    items = _read_meta(meta[4:])
    kind = items.kinds.get(items.primary)
    if kind == b"grid":
        raise RefusedError("an AVIF file whose picture is made of tiles (a grid)")
    if kind != b"av01":
        raise DamagedError(f"its primary item is {kind!r}, not an AV1 picture")
    properties = _properties(items)
    if b"ispe" not in properties:
        raise DamagedError("its primary item has no width and height")
    width, height = struct.unpack_from(">II", properties[b"ispe"], 4)
    stream, largest = _first_and_largest(data, items)
    turns = properties.get(b"irot", b"\0")[0] & 3
    axis = properties[b"imir"][0] & 1 if b"imir" in properties else None
    return Header(
        kind="AVIF",
        width=width,
        height=height,
        decoded_pixels=largest,
        orientation=_ORIENTATIONS[turns, axis],
        # With another brand libavif would decode the frames of an animation instead of the picture looked at here.
        payload=data[:8] + b"avif" + data[12:],
        levels=_levels(stream, properties.get(b"colr", b"")),
    )


def _levels(stream: "_Stream", colour: bytes) -> tuple[NDArray[np.uint8], ...] | None:
    """What the samples that OpenCV gives stand for; it leaves them at their depth, and grey at its range."""
    full = colour[10] >> 7 if colour.startswith(b"nclx") and len(colour) > 10 else stream.full_range
    if stream.grey and not full:
        unit = 1 << stream.bits - 8  # black is at 16 of 255, white at 235
        values = np.arange(1 << max(stream.bits, 8)) - 16 * unit
        limited = np.rint(values * (255 / (219 * unit))).clip(0, 255).astype(np.uint8)
        return (limited,) if stream.bits == 8 else (np.pad(limited, (0, (1 << 16) - len(limited)), mode="edge"),)
    return None if stream.bits == 8 else (levels((1 << stream.bits) - 1, 1 << 16),)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each box."""
    position = 0
    while position < len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        start = position + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, start)
            start += 8
        end = position + size if size else len(data)
        if end < start:
            raise DamagedError(f"its box {kind!r} is of {size} bytes")
        if end > len(data):
            raise struct.error
        yield kind, data[start:end]
        position = end


def _read_meta(data: bytes) -> _Meta:
    items = _Meta()
    for kind, body in _boxes(data):
        version = body[0] if body else 0
        if kind == b"pitm":
            (items.primary,) = struct.unpack_from(">I" if version else ">H", body, 4)
        elif kind == b"iinf":
            for entry, info in _boxes(body[8 if version else 6 :]):
                if entry == b"infe" and info[:1] in {b"\2", b"\3"}:
                    number, _, item = struct.unpack_from(">HH4s" if info[0] == 2 else ">IH4s", info, 4)
                    items.kinds[number] = item
        elif kind == b"iloc":
            items.places = _read_places(body)
        elif kind == b"idat":
            items.stored = body
        elif kind == b"iprp":
            for entry, content in _boxes(body):
                if entry == b"ipco":
                    items.properties = list(_boxes(content))
                elif entry == b"ipma":
                    items.belongs.update(_read_associations(content))
    return items


class _Reader:
    """Big-endian numbers, one after the other."""

    def __init__(self, data: bytes, position: int = 0) -> None:
        self._data, self._position = data, position

    def take(self, size: int) -> int:
        end = self._position + size
        if end > len(self._data):
            raise struct.error
        number = int.from_bytes(self._data[self._position : end])
        self._position = end
        return number


def _read_places(body: bytes) -> dict[int, list[tuple[int, int, int]]]:
    """Where each item lies: `iloc`."""
    version = body[0] if body else 0
    read = _Reader(body, 4)
    sizes = read.take(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    places: dict[int, list[tuple[int, int, int]]] = {}
    for _ in range(read.take(2 if version < 2 else 4)):
        number = read.take(2 if version < 2 else 4)
        method = read.take(2) & 15 if version else 0
        read.take(2)  # an index of the file that holds the item: this one
        base = read.take(base_size)
        extents = []
        for _ in range(read.take(2)):
            if version:
                read.take(index_size)
            offset = read.take(offset_size)
            extents.append((method, base + offset, read.take(length_size)))
        places[number] = extents
    return places


def _read_associations(body: bytes) -> dict[int, list[int]]:
    """Indices of the properties of each item: `ipma`."""
    version, flags = body[0] if body else 0, body[3] if len(body) > 3 else 0
    read = _Reader(body, 4)
    belongs: dict[int, list[int]] = {}
    for _ in range(read.take(4)):
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
            found.setdefault(kind, body)
    return found


@dataclass(frozen=True)
class _Stream:
    """What a sequence header says: pixels of the largest frame, bits a sample, grey alone, all values in use."""

    pixels: int
    bits: int
    grey: bool
    full_range: bool


def _first_and_largest(data: bytes, items: _Meta) -> tuple[_Stream, int]:
    """The stream of the primary picture, and the most pixels that any AV1 picture of the file decodes to."""
    primary: _Stream | None = None
    largest = 0
    for number in (number for number, kind in items.kinds.items() if kind == b"av01"):
        found = list(_sequence_headers(_content(data, items, number)))
        if not found:
            raise DamagedError(f"its item {number} is no AV1 picture")
        largest = max(largest, *(stream.pixels for stream in found))
        if number == items.primary:
            primary = found[0]
    if primary is None:
        raise DamagedError("its primary item is missing")
    return primary, largest


def _content(data: bytes, items: _Meta, number: int) -> bytes:
    parts = []
    for method, offset, length in items.places.get(number, ()):
        source = {0: data, 1: items.stored}.get(method)
        if source is None:
            raise DamagedError(f"its item {number} is stored by method {method}")
        if offset + length > len(source):
            raise struct.error
        parts.append(source[offset : offset + length] if length else source[offset:])
    return b"".join(parts)


def _sequence_headers(data: bytes) -> Iterator[_Stream]:
    """Each sequence header of a stream (AV1 specification 5.3)."""
    position = 0
    while position < len(data):
        head = data[position]
        position += 2 if head & 4 else 1
        size = len(data) - position
        if head & 2:
            size = 0
            for shift in range(0, 56, 7):
                if position >= len(data):
                    raise struct.error
                byte = data[position]
                position += 1
                size |= (byte & 127) << shift
                if byte < 128:
                    break
        if position + size > len(data):
            raise struct.error
        if head >> 3 & 15 == _SEQUENCE_HEADER:
            yield _sequence_header(_Bits(data[position : position + size]))
        position += size


class _Bits:
    """Numbers of any count of bits, the highest bit first."""

    def __init__(self, data: bytes) -> None:
        self._number, self._left = int.from_bytes(data[:256]), 8 * len(data[:256])

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise struct.error
        return self._number >> self._left & ((1 << count) - 1)

    def variable(self) -> int:
        """The specification's uvlc()."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return self.take(zeros) + (1 << zeros) - 1


def _sequence_header(read: _Bits) -> _Stream:
    """sequence_header_obu() of AV1 specification 5.5, up to the range of colours."""
    profile, _still, reduced = read.take(3), read.take(1), read.take(1)
    if reduced:
        read.take(5)  # level
    else:
        _skip_operating_points(read)
    width_bits, height_bits = read.take(4) + 1, read.take(4) + 1
    width, height = read.take(width_bits) + 1, read.take(height_bits) + 1
    if not reduced and read.take(1):  # frame numbers
        read.take(7)
    read.take(3)  # superblocks of 128, intra filter, intra edge filter
    if not reduced:
        read.take(4)  # compounds of inter and intra, masked compounds, warped motion, dual filter
        order_hint = read.take(1)
        read.take(2 * order_hint)
        screen_content = 2 if read.take(1) else read.take(1)
        if screen_content and not read.take(1):
            read.take(1)  # integer motion vectors
        read.take(3 * order_hint)
    read.take(3)  # super-resolution, CDEF, restoration
    high = read.take(1)
    twelve = read.take(1) if profile == 2 and high else 0
    grey = profile != 1 and bool(read.take(1))
    full = True  # colours in RGB, which give no range
    rgb = False
    if read.take(1):
        rgb = (read.take(8), read.take(8), read.take(8)) == (1, 13, 0)
    if grey or not rgb:
        full = bool(read.take(1))
    return _Stream(width * height, 12 if twelve else 10 if high else 8, grey, full)


def _skip_operating_points(read: _Bits) -> None:
    delay_bits = 0
    if read.take(1):  # timing
        read.take(64)
        if read.take(1):
            read.variable()
        if read.take(1):  # decoder model
            delay_bits = read.take(5) + 1
            read.take(42)
    display_delay = read.take(1)
    for _ in range(read.take(5) + 1):
        read.take(12)
        if read.take(5) > 7:  # level
            read.take(1)
        if delay_bits and read.take(1):
            read.take(2 * delay_bits + 1)
        if display_delay and read.take(1):
            read.take(4)
