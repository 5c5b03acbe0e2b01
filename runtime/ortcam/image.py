"""Pictures in and out: a file, its bytes or an array becomes upright uint8 RGB, and RGB becomes PNG."""

import os
import re
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ortcam.errors import ImageError, OutputError

__all__ = ["DEFAULT_MAX_PIXELS", "decode", "encode_png", "read_file", "read_image", "write_png"]

DEFAULT_MAX_PIXELS = 178_956_970  # Pillow's decompression-bomb limit: 512 MiB of RGB

_ACCEPTED = "accepted: JPEG, PNG, WebP, BMP, TIFF"
_ORIENTATION, _TIFF_WIDTH, _TIFF_HEIGHT = 274, 256, 257


def read_image(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview | NDArray[np.uint8],
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> NDArray[np.uint8]:
    """Read a picture as upright RGB, pixel for pixel what Pillow's `exif_transpose(open(...)).convert("RGB")` gives.

    Grey becomes RGB and alpha is dropped, both as `convert("RGB")` does. Samples of 16 bits keep their upper 8 bits
    (Pillow clips 16-bit grey at 255, which turns most pixels white). Three known differences: CMYK JPEGs are within
    1 of Pillow, TIFFs of 8 bits with alpha come composited on black, and of XMP only EXIF's orientation counts.

    Args:
        source: Path of an encoded picture, the encoded bytes, or uint8 pixels: RGB [H, W, 3], RGBA [H, W, 4], or grey
            [H, W] or [H, W, 1]. RGB pixels that are contiguous are returned as they are, not copied.
        max_pixels: Encoded pictures above this many pixels are refused; JPEG, PNG, WebP, BMP, GIF and TIFF from their
            header, before anything is decoded. OpenCV itself stops at 2**30.

    Returns:
        uint8 [H, W, 3], RGB, C-contiguous.

    Raises:
        ImageError: The source is missing, unreadable, empty, not a picture, truncated, damaged or too large, or is an
            array of another type or shape.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return decode(bytes(source), f"image of {memoryview(source).nbytes} bytes", max_pixels)
    if not isinstance(source, str | os.PathLike):
        raise ImageError(f"an image cannot be read from {type(source).__name__}: give a path, bytes or a uint8 array")
    return decode(*read_file(source), max_pixels)


def read_file(path: str | os.PathLike[str]) -> tuple[bytes, str]:
    """The content of a file, and its name for messages.

    Raises:
        ImageError: it is missing, a folder, or cannot be read.
    """
    name = f"image {os.fspath(path)!r}"
    try:
        return Path(path).read_bytes(), name
    except FileNotFoundError:
        raise ImageError(f"{name} does not exist: give the path of a picture ({_ACCEPTED})") from None
    except IsADirectoryError:
        raise ImageError(f"{name} is a directory: give the path of one picture ({_ACCEPTED})") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{name} cannot be read ({reason}): give the path of a readable file") from None


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Encode uint8 RGB [H, W, 3] as PNG, without loss.

    Raises:
        ImageError: The array is not uint8 [H, W, 3], or has a side that PNG or OpenCV does not take.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ImageError(f"PNG is written from uint8 [H, W, 3], not from {image.dtype} {list(image.shape)}")
    try:
        _, encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise ImageError(f"PNG of shape {list(image.shape)} cannot be encoded: {_one_line(error)}") from None
    return encoded.tobytes()


def write_png(path: str | os.PathLike[str], image: NDArray[np.uint8]) -> None:
    """Write uint8 RGB [H, W, 3] as a PNG file.

    Raises:
        ImageError: The array is not uint8 [H, W, 3].
        OutputError: The file cannot be written.
    """
    data = encode_png(image)
    try:
        # cv2.imwrite cannot open non-ASCII paths on Windows.
        Path(path).write_bytes(data)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{os.fspath(path)!r} cannot be written ({reason})") from None


def _from_array(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 1)
    colour = pixels.ndim == 3 and pixels.shape[2] in {3, 4}
    if pixels.dtype != np.uint8 or not (grey or colour) or pixels.size == 0:
        raise ImageError(
            f"array of {pixels.dtype} {list(pixels.shape)} is not a picture; accepted: uint8 with H, W >= 1 as "
            "[H, W, 3] RGB, [H, W, 4] RGBA, [H, W] or [H, W, 1] grey"
        )
    if grey:
        return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(pixels[..., :3])


def decode(data: bytes, name: str, max_pixels: int) -> NDArray[np.uint8]:
    """Encoded bytes as `read_image` reads them.

    Args:
        data: of a file.
        name: of it, for messages.
        max_pixels: as of `read_image`.

    Raises:
        ImageError: they are empty, not a picture, truncated, damaged or too large.
    """
    if not data:
        raise ImageError(f"{name} is empty: 0 bytes; {_ACCEPTED}")
    header = _read_header(data, name)
    if header is not None:
        _check_size(header.width, header.height, name, max_pixels)
    # OpenCV misses EXIF behind XMP and, before 5, in WebP, so the walk above reads it. TIFF is turned by libtiff.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    if header is not None and header.kind != "TIFF":
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    payload = data if header is None or header.payload is None else header.payload
    try:
        with _quiet():
            decoded: NDArray[Any] | None = cv2.imdecode(np.frombuffer(payload, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(f"{name} cannot be decoded by OpenCV {cv2.__version__}: {_one_line(error)}") from None
    if decoded is None:
        if header is None:
            raise ImageError(f"{name} is not a picture: it begins with {data[:8]!r}; {_ACCEPTED}")
        reason = f"damaged, or of a variety that OpenCV {cv2.__version__} does not read"
        raise ImageError(f"{name} is a {header.kind} file that cannot be decoded: {reason}; {_ACCEPTED}")
    _check_size(decoded.shape[1], decoded.shape[0], name, max_pixels)
    if decoded.dtype == np.uint16:
        # OpenCV's own reduction rounds in some formats and shifts in others.
        decoded = (decoded >> 8).astype(np.uint8)
    if decoded.dtype != np.uint8:
        raise ImageError(f"{name} has samples of {decoded.dtype}; accepted: 8 or 16 bits")
    rgb: NDArray[Any] = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    return _upright(rgb, header.orientation if header else 1)


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError(
            f"{name} has {width} x {height} = {width * height} pixels, more than the limit of {max_pixels}; "
            "a larger max_pixels raises it"
        )


def _upright(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo an EXIF orientation of 1 to 8; anything else is no orientation."""
    if orientation in {5, 6, 7, 8}:
        image = image.swapaxes(0, 1)
    if orientation in {2, 3, 6, 7}:
        image = image[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        image = image[::-1]
    return np.ascontiguousarray(image)


@dataclass(frozen=True)
class _Header:
    """What a file says before it is decoded; `payload` replaces the file's bytes where OpenCV should see less."""

    kind: str
    width: int
    height: int
    orientation: int = 1
    payload: bytes | None = None


class _DamagedError(Exception):
    """The walk through a file's structure found it broken."""


def _read_header(data: bytes, name: str) -> _Header | None:
    """Walk a file of a known format to its end; None for any other format."""
    for signature, walk in _WALKS:
        if signature.match(data):
            try:
                return walk(data)
            except struct.error:
                raise ImageError(f"{name} is truncated: {len(data)} bytes end before the picture does") from None
            except _DamagedError as error:
                raise ImageError(f"{name} is damaged: {error}") from None
    return None


# A marker, unlike FF 00 (a stuffed byte), FF D0-D7 (restarts) and FF FF (fill) inside entropy-coded data.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_JPEG_SOI, _JPEG_EOI, _JPEG_APP1, _JPEG_TEM = 0xD8, 0xD9, 0xE1, 0x01
_JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _walk_jpeg(data: bytes) -> _Header:
    # To the picture's own end-of-image marker: that of an EXIF thumbnail lies inside a segment, which is skipped, and
    # what follows the end (a second picture, padding) is nobody's business.
    width = height = 0
    orientation = position = 0
    while match := _JPEG_MARKER.search(data, position):
        marker, position = data[match.start() + 1], match.end()
        if marker == _JPEG_EOI:
            return _Header("JPEG", width, height, orientation or 1)
        if marker in {_JPEG_SOI, _JPEG_TEM}:
            continue
        (length,) = struct.unpack_from(">H", data, position)
        segment = data[position + 2 : position + length]
        position += length
        if marker in _JPEG_FRAMES and not width:
            height, width = struct.unpack_from(">HH", segment, 1)
        elif marker == _JPEG_APP1 and segment.startswith(b"Exif\0\0") and not orientation:
            orientation = _exif_orientation(segment)
    raise struct.error


def _walk_png(data: bytes) -> _Header:
    width = height = 0
    orientation = 1
    kept, start = [data[:8]], 8
    while True:
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + length + 12
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        body = data[start + 8 : end - 4]
        if kind[:1].isupper() and zlib.crc32(body, zlib.crc32(kind)) != checksum:
            raise _DamagedError(f"the checksum of its {kind!r} chunk does not match")
        if kind == b"IHDR":
            width, height = struct.unpack_from(">II", body)
        elif kind == b"eXIf":
            orientation = _exif_orientation(body)
        if kind != b"iCCP":  # not applied by OpenCV, and libpng prints a warning for many that are in use
            kept.append(data[start:end])
        if kind == b"IEND":
            return _Header("PNG", width, height, orientation, b"".join(kept))
        start = end


def _walk_webp(data: bytes) -> _Header:
    width = height = 0
    orientation, start = 1, 12
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise struct.error
    while start + 8 <= end:
        kind, length = struct.unpack_from("<4sI", data, start)
        body = data[start + 8 : start + 8 + length]
        if kind == b"VP8X":
            width, height = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))
        elif kind == b"VP8 " and not width:
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", body, 6))
        elif kind == b"VP8L" and not width:
            (bits,) = struct.unpack_from("<I", body, 1)
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif kind == b"EXIF":
            orientation = _exif_orientation(body)
        start += 8 + length + length % 2
    return _Header("WebP", width, height, orientation)


def _walk_bmp(data: bytes) -> _Header:
    old = struct.unpack_from("<I", data, 14) == (12,)
    width, height = struct.unpack_from("<HH" if old else "<ii", data, 18)
    return _Header("BMP", abs(width), abs(height))  # a negative height means top row first


def _walk_gif(data: bytes) -> _Header:
    return _Header("GIF", *struct.unpack_from("<HH", data, 6))


def _walk_tiff(data: bytes) -> _Header:
    tags = _tiff_tags(data)
    return _Header("TIFF", tags.get(_TIFF_WIDTH, 0), tags.get(_TIFF_HEIGHT, 0))


_WALKS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], _Header]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), _walk_jpeg),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), _walk_png),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), _walk_webp),
    (re.compile(rb"BM"), _walk_bmp),
    (re.compile(rb"GIF8[79]a"), _walk_gif),
    (re.compile(rb"II\x2a\x00|MM\x00\x2a"), _walk_tiff),
)


def _exif_orientation(block: bytes) -> int:
    try:
        return _tiff_tags(block.removeprefix(b"Exif\0\0")).get(_ORIENTATION, 1)
    except (KeyError, struct.error):
        return 1  # broken metadata do not make a picture unreadable


def _tiff_tags(data: bytes) -> dict[int, int]:
    """Tags that hold one integer in the first directory of a TIFF file, which is also the form of EXIF."""
    order = {b"II": "<", b"MM": ">"}[data[:2]]
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    tags = {}
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, entry)
        if number == 1 and kind in {3, 4}:
            (tags[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)
    return tags


_LOGGING: Any = getattr(cv2.utils, "logging", cv2)  # cv2.utils.logging since OpenCV 5


class _Quiet:
    """Silences OpenCV's log while any thread decodes; what it would say becomes an `ImageError`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = self._level = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._depth == 0:
                self._level = _LOGGING.setLogLevel(0)
            self._depth += 1
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                if self._depth == 0:
                    _LOGGING.setLogLevel(self._level)


_quiet = _Quiet()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
