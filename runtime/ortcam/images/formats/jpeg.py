"""The header of a JPEG: its markers (ITU-T T.81, annex B), and whether its scans hold all of its components."""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from ortcam.images.formats.header import DamagedError, Header, Parts, RefusedError, exif_orientation

__all__ = ["next_marker", "walk_jpeg"]

# A marker, unlike FF 00 (a stuffed byte), FF D0-D7 (restarts) and FF FF (fill) inside entropy-coded data.
_MARKER: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_IS_MARKER: Final = np.array([_MARKER.match(bytes([0xFF, value])) is not None for value in range(256)])
_NEAR: Final = 4096  # bytes in which the next marker of a header is; in front of others lies a scan
_WINDOW: Final = 1 << 18
_SOI, _EOI, _SOS, _APP1, _TEM = 0xD8, 0xD9, 0xDA, 0xE1, 0x01
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_DECODED: Final = {0xC0, 0xC1, 0xC2}
_ARITHMETIC: Final = {0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_PROGRESSIVE: Final = 0xC2
_LS: Final = 0xF7
_MOST_SCANS: Final = 64  # each costs as much as decoding an image; cameras and programs make about ten
_MOST_MARKERS: Final = 10_000
_COEFFICIENTS: Final = 64


@dataclass(eq=False)
class _Component:
    """A component's number, how often it is sampled, how many bits of each of its 64 coefficients are still to come."""

    name: int
    across: int
    down: int
    left: list[int | None] = field(default_factory=lambda: [None] * _COEFFICIENTS)


@dataclass
class _Frame:
    width: int
    height: int
    progressive: bool
    components: list[_Component]
    several_scans: bool = False
    flaw: str = ""

    def working(self) -> int:
        """Bytes of the coefficients that libjpeg keeps where an image comes in several scans."""
        if not self.progressive and not self.several_scans:
            return 0
        most_across = max(one.across for one in self.components)
        most_down = max(one.down for one in self.components)
        units = -(-self.width // (8 * most_across)) * -(-self.height // (8 * most_down))
        return sum(2 * _COEFFICIENTS * units * one.across * one.down for one in self.components)


def walk_jpeg(data: bytes) -> Header:
    """The header of a JPEG, walked to the image's own end-of-image marker.

    That of an EXIF thumbnail lies inside a segment, which is skipped, and what follows the end (a second image,
    padding) is nobody's business.

    Raises:
        DamagedError: it ends before its pixels begin, or its segments do not fit each other.
        RefusedError: a variety that is not accepted.
        struct.error: the file ends before the image does.
    """
    frame: _Frame | None = None
    orientation = scans = 0
    for marker, segment, position in _segments(data):
        if marker == _EOI:
            if frame is None or not scans:
                raise DamagedError("it ends before its pixels begin")
            return Header(
                kind="JPEG",
                width=frame.width,
                height=frame.height,
                orientation=orientation or 1,
                working=frame.working(),
                grey=len(frame.components) == 1,
                flaw=frame.flaw or _missing(frame),
            )
        if marker in _FRAMES:
            if frame is not None:
                raise DamagedError("it has two frames")
            frame = _read_frame(marker, segment)
        elif marker == _SOS:
            scans += 1
            if scans > _MOST_SCANS:
                raise RefusedError(f"a JPEG of more than {_MOST_SCANS} scans")
            if frame is None:
                raise DamagedError("one of its scans comes before its frame")
            _read_scan(segment, frame)
            if _MARKER.match(data, position):
                frame.flaw = frame.flaw or f"its scan {scans} holds no data"
        elif marker == _APP1 and segment.startswith(b"Exif\0\0") and not orientation:
            orientation = exif_orientation(segment)
    if data.endswith(b"\xff\xd9"):
        raise DamagedError("a marker in its pixels points past the end of the file")
    raise struct.error


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Each marker, the segment that follows it, and where that ends; of the end of the image an empty one."""
    position = 0
    parts = Parts(_MOST_MARKERS, "markers")
    while (place := next_marker(data, position)) is not None:
        parts.count()
        marker, position = data[place + 1], place + 2
        if marker in {_SOI, _TEM}:
            continue
        if marker == _LS:
            raise RefusedError("a JPEG-LS image")
        length = 0
        if marker != _EOI:
            (length,) = struct.unpack_from(">H", data, position)
            if length < 2:
                raise DamagedError(f"one of its segments has {length} bytes")
        yield marker, data[position + 2 : position + length], position + length
        position += length


def next_marker(data: bytes, position: int) -> int | None:
    """Where the next marker begins; None: there is none. It costs a few nanoseconds per byte, whatever these are."""
    if match := _MARKER.search(data, position, position + _NEAR):
        return match.start()
    values, start, length = np.frombuffer(data, np.uint8), position + _NEAR - 1, _NEAR
    while start < len(data) - 1:
        window = values[start : start + length + 1]
        places = np.flatnonzero(window[:-1] == 0xFF)
        found = places[_IS_MARKER[window[places + 1]]]
        if found.size:
            return start + int(found[0])
        start, length = start + length, min(8 * length, _WINDOW)  # so that many markers cost no more than few
    return None


def _read_frame(marker: int, segment: bytes) -> _Frame:
    bits, height, width, count = struct.unpack_from(">BHHB", segment)
    if marker in _ARITHMETIC:  # slow, and libjpeg fills what is missing of it with grey and says nothing
        raise RefusedError("a JPEG with arithmetic coding")
    if marker not in _DECODED:
        raise RefusedError("a lossless or hierarchical JPEG")
    if bits != 8:
        raise RefusedError(f"a JPEG of {bits} bits per sample", "8")
    if not 1 <= count <= 4 or not height or not width:
        raise DamagedError(f"its frame has {width} x {height} pixels and {count} components")
    components = []
    for number in range(count):
        name, sampling, _ = struct.unpack_from("BBB", segment, 6 + 3 * number)
        if not 1 <= sampling >> 4 <= 4 or not 1 <= sampling & 15 <= 4:
            raise DamagedError(f"its component {name} is sampled {sampling >> 4} x {sampling & 15} times")
        components.append(_Component(name, sampling >> 4, sampling & 15))
    return _Frame(width, height, marker == _PROGRESSIVE, components)


def _read_scan(segment: bytes, frame: _Frame) -> None:
    """Note which coefficients of which components a scan brings."""
    count = segment[0]
    first, last, bits = struct.unpack_from("BBB", segment, 1 + 2 * count)
    if not frame.progressive:  # which brings all of them, and the first stands for them
        first, last, bits = 0, 0, 0
    refined, left = bits >> 4, bits & 15
    if first > last or last >= _COEFFICIENTS:
        raise DamagedError(f"one of its scans has coefficients {first} to {last}")
    frame.several_scans |= count < len(frame.components)
    free = list(frame.components)  # several may have one name
    for number in range(count):
        name = segment[1 + 2 * number]
        component = next((one for one in free if one.name == name), None)
        if component is None:
            raise DamagedError(f"one of its scans has component {name}, which its frame lacks")
        free.remove(component)
        if refined and component.left[first : last + 1] != [refined] * (last + 1 - first):
            frame.flaw = frame.flaw or f"no scan holds the first bits of its component {name}"
        component.left[first : last + 1] = [left] * (last + 1 - first)


def _missing(frame: _Frame) -> str:
    """What no scan brought, in words; "" where all is there."""
    for component in frame.components:
        if component.left[0] is None:
            return f"no scan holds its component {component.name}"
        if frame.progressive and None in component.left:
            missing = component.left.index(None)
            return f"no scan holds the details (coefficient {missing}) of its component {component.name}"
        if frame.progressive and any(component.left):
            return f"the scan with the last bits of its component {component.name} is missing"
    return ""
