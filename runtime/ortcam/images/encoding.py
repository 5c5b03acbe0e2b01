"""From uint8 RGB to the bytes of a PNG or JPEG file, and the mark by which a sheet of ortcam's is known."""

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ortcam.errors import ImageError, OutputError
from ortcam.support.terminal import one_line

__all__ = ["encode_jpeg", "encode_png", "is_sheet", "mark_sheet", "write_png"]

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_BEFORE_MARK: Final = 33  # bytes of a PNG file's signature and its first chunk
_MARK: Final = b"Software\0ortcam sheet"


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Encode uint8 RGB [H, W, 3] as PNG, without loss.

    Raises:
        ImageError: The array is not uint8 [H, W, 3], or has a side that PNG or OpenCV does not take.
    """
    return _encoded(image, ".png", "PNG")


def encode_jpeg(image: NDArray[np.uint8], quality: int = 85) -> bytes:
    """Encode uint8 RGB [H, W, 3] as JPEG.

    Raises:
        ImageError: The array is not uint8 [H, W, 3], or has a side of more than 65,500 pixels.
    """
    return _encoded(image, ".jpg", "JPEG", (cv2.IMWRITE_JPEG_QUALITY, quality))


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


def is_sheet(path: Path) -> bool:
    """Whether a file is a sheet that ortcam wrote, and so no photograph to explain.

    Example:
        >>> is_sheet(Path("photograph.jpg"))
        False
    """
    try:
        if path.is_symlink() or not path.is_file():
            return False
        with path.open("rb") as file:
            start = file.read(_BEFORE_MARK + 8 + len(_MARK))
    except OSError:
        return False
    return start.startswith(_PNG) and start.endswith(_MARK)


def mark_sheet(png: bytes) -> bytes:
    """Add a chunk to a PNG file that says that it is a sheet of ortcam's (PNG specification, 11.3.3.2: tEXt)."""
    body = b"tEXt" + _MARK
    chunk = len(_MARK).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    return png[:_BEFORE_MARK] + chunk + png[_BEFORE_MARK:]


def _encoded(image: NDArray[np.uint8], suffix: str, name: str, settings: Sequence[int] = ()) -> bytes:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ImageError(f"{name} is written from uint8 [H, W, 3], not from {image.dtype} {list(image.shape)}")
    try:
        _, encoded = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), list(settings))
    except cv2.error as error:
        raise ImageError(f"{name} of shape {list(image.shape)} cannot be encoded: {one_line(error)}") from None
    return encoded.tobytes()
