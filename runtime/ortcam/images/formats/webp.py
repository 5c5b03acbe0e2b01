"""The header of a WebP file: the chunks of its RIFF container, and the first frame of an animation."""

import struct
from collections.abc import Callable, Iterator

from ortcam.images.formats.header import MOST_CHUNKS, DamagedError, Header, Parts, exif_orientation
from ortcam.images.formats.vp8l import Stream

__all__ = ["walk_webp"]

_FRAME = 16  # bytes before the chunks of a frame


def walk_webp(data: bytes) -> Header:
    """Walk a WebP file to its end, without decoding it.

    Raises:
        DamagedError: a chunk is missing or twice there, or sizes do not agree.
        RefusedError: more chunks than an image has.
        struct.error: the file ends before its image does.
    """
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise struct.error
    width = height = 0
    orientation: int | None = None
    animated = False
    image: tuple[bytes, int, int] | None = None
    alpha: tuple[int, int] | None = None
    frame: tuple[int, int] | None = None
    parts = Parts(MOST_CHUNKS, "chunks")
    for kind, start, stop in _riff_chunks(data, 12, end, parts):
        if kind == b"VP8X":
            animated = bool(data[start] & 2)
            width, height = _three(data, start + 4, stop) + 1, _three(data, start + 7, stop) + 1
        elif kind == b"EXIF" and orientation is None:
            orientation = exif_orientation(data[start:stop])
        elif kind in {b"VP8 ", b"VP8L"} and image is None:
            image = kind, start, stop
        elif kind == b"ALPH":
            alpha = _only(alpha, start, stop)
        elif kind == b"ANMF" and frame is None:
            frame = start, stop
    if animated:
        if frame is None:
            raise DamagedError("it is animated, but holds no frame")
        return _first_frame(data, width, height, orientation or 1, *frame)
    if image is None:
        raise DamagedError("it holds no image")
    size = _size(data, *image[:2])
    if width and size != (width, height):
        raise DamagedError(f"its header says {width} x {height} pixels, but it holds {size[0]} x {size[1]}")
    working, measure = _working(data, image, alpha, size)
    return Header(
        kind="WebP",
        width=size[0],
        height=size[1],
        orientation=orientation or 1,
        working=working,
        measure=measure,
    )


def _only(before: tuple[int, int] | None, start: int, stop: int) -> tuple[int, int]:
    if before is not None:
        raise DamagedError("it has two alpha chunks")
    return start, stop


def _working(
    data: bytes, image: tuple[bytes, int, int], alpha: tuple[int, int] | None, size: tuple[int, int]
) -> tuple[int, Callable[[], int] | None]:
    """Bytes beside the decoded image: four channels of it, what is lossless in it, and the codes of that.

    Args:
        data: of the file.
        image: kind, beginning and end of the chunk that holds the colours.
        alpha: beginning and end of the chunk that holds alpha alone, if there is one.
        size: width and height.

    Returns:
        The most they may be, and what finds out more closely.
    """
    kind, start, stop = image
    pixels = size[0] * size[1]
    if kind == b"VP8L":
        working, lossless = 9 * pixels, Stream(data, start, stop, *size)
    elif alpha is not None and alpha[0] < alpha[1] and data[alpha[0]] & 3 == 1:
        working, lossless = 6 * pixels, Stream(data, alpha[0] + 1, alpha[1], *size, headless=True)
    else:
        return (0 if alpha is None else 6 * pixels), None
    return working + lossless.most_tables(), lambda: working + lossless.tables()


def _first_frame(data: bytes, width: int, height: int, orientation: int, start: int, stop: int) -> Header:
    """The header of an animation: its first frame as a file of its own, which is put where it belongs afterwards."""
    top, left = 2 * _three(data, start + 3, stop), 2 * _three(data, start, stop)
    image: tuple[bytes, int, int] | None = None
    alpha: tuple[int, int] | None = None
    for kind, begin, end in _riff_chunks(data, start + _FRAME, stop, Parts(MOST_CHUNKS, "chunks")):
        if kind in {b"VP8 ", b"VP8L"} and image is None:
            image = kind, begin, end
        elif kind == b"ALPH":
            alpha = _only(alpha, begin, end)
    size = (0, 0) if image is None else _size(data, *image[:2])
    if image is None or left + size[0] > width or top + size[1] > height:
        raise DamagedError("its first frame does not fit into it")
    # It is decoded with alpha, whether it has one or not.
    working, measure = _working(data, image, alpha or (stop, stop), size)
    still = struct.pack("<B3x", 0x10) + b"".join((side - 1).to_bytes(3, "little") for side in size)
    content = memoryview(data)[start + _FRAME : stop]
    before = b"WEBPVP8X" + struct.pack("<I", len(still)) + still
    return Header(
        kind="WebP",
        width=width,
        height=height,
        orientation=orientation,
        payload=b"".join([b"RIFF", struct.pack("<I", len(before) + len(content)), before, content]),
        working=working,
        measure=measure,
        canvas=None if size == (width, height) else (height, width, top, left),
    )


def _riff_chunks(data: bytes, start: int, end: int, parts: Parts) -> Iterator[tuple[bytes, int, int]]:
    """Kind, beginning and end of the content of each chunk."""
    while start + 8 <= end:
        parts.count()
        kind, length = struct.unpack_from("<4sI", data, start)
        stop = start + 8 + length
        if stop > end:
            raise struct.error
        yield kind, start + 8, stop
        start = stop + length % 2


def _size(data: bytes, kind: bytes, start: int) -> tuple[int, int]:
    if kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, start + 6))
        if not width or not height:
            raise DamagedError(f"it holds an image of {width} x {height} pixels")
        return width, height
    (bits,) = struct.unpack_from("<I", data, start + 1)
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


def _three(data: bytes, at: int, end: int) -> int:
    if at + 3 > end:
        raise struct.error
    return int.from_bytes(data[at : at + 3], "little")
