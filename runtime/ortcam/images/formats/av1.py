"""The sequence headers of an AV1 image: size, samples and frames (AV1 specification, 5.3 and 5.5)."""

import dataclasses
import struct
from dataclasses import dataclass
from typing import Final

from ortcam.images.formats.header import DamagedError, Parts, RefusedError

__all__ = ["Av1Stream", "read_stream"]

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6  # types of OBU
_MOST_OBUS: Final = 10_000
_MOST_FRAMES: Final = 8  # of an image in layers, each of which costs as much as an image


@dataclass(frozen=True)
class Av1Stream:
    """What a stream of AV1 says.

    Attributes:
        width: of its frames, at most.
        height: the same.
        bits: of a sample.
        grey: no colours.
        full_range: all values are in use.
        planes: samples per pixel, those of colours included, as libaom keeps them: of grey it keeps colours, too.
        grain: grain may be laid over a frame.
        frames: how many there are.
    """

    width: int
    height: int
    bits: int
    grey: bool
    full_range: bool
    planes: float
    grain: bool
    frames: int = 1


def read_stream(data: memoryview, number: int) -> Av1Stream:
    """The largest of the sequence headers of an item, and how many frames it holds (AV1 specification 5.3)."""
    position = frames = 0
    headers: list[Av1Stream] = []
    parts = Parts(_MOST_OBUS, "parts of an AV1 stream")
    while position < len(data):
        parts.count()
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
        kind = head >> 3 & 15
        if kind == _SEQUENCE_HEADER:
            headers.append(_sequence_header(_Bits(bytes(data[position : position + size][:256]))))
        elif kind in {_FRAME, _FRAME_HEADER}:
            frames += 1
        position += size
    if not headers:
        raise DamagedError(f"its item {number} is not an AV1 image")
    if frames > _MOST_FRAMES:
        raise RefusedError(f"an AVIF file of more than {_MOST_FRAMES} frames per image")
    first = headers[0]
    for other in headers[1:]:
        if other != first:
            raise DamagedError(f"its item {number} changes its size or its samples")
    return dataclasses.replace(first, frames=max(frames, 1))


class _Bits:
    """Numbers of any count of bits, the highest bit first."""

    def __init__(self, data: bytes) -> None:
        self._number, self._left = int.from_bytes(data), 8 * len(data)

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


def _sequence_header(read: _Bits) -> Av1Stream:
    """sequence_header_obu() of AV1 specification 5.5."""
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
    rgb = False
    if read.take(1):
        rgb = (read.take(8), read.take(8), read.take(8)) == (1, 13, 0)
    bits = 12 if twelve else 10 if high else 8
    full = bool(read.take(1)) if grey or not rgb else True  # colours in RGB give no range
    planes = 1.5 if grey else 3 if rgb else _planes(read, profile, bits)
    if not grey:
        read.take(1)  # separate deltas of the quantisers
    return Av1Stream(width, height, bits, grey, full, planes, bool(read.take(1)))


def _planes(read: _Bits, profile: int, bits: int) -> float:
    """Samples a pixel of an image of luma and chroma."""
    across, down = profile != 1, profile == 0
    if profile == 2 and bits == 12:
        across = bool(read.take(1))
        down = across and bool(read.take(1))
    if across and down:
        read.take(2)  # where samples of colours lie
    return 1 + 2 / ((1 + across) * (1 + down))


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
