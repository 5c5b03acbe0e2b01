"""From uint8 RGB to the bytes of a PNG or JPEG file."""

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ortcam.errors import ImageError, OutputError
from ortcam.support.terminal import one_line

__all__ = ["encode_jpeg", "encode_png", "write_png"]


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


def _encoded(image: NDArray[np.uint8], suffix: str, name: str, settings: Sequence[int] = ()) -> bytes:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ImageError(f"{name} is written from uint8 [H, W, 3], not from {image.dtype} {list(image.shape)}")
    try:
        _, encoded = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), list(settings))
    except cv2.error as error:
        raise ImageError(f"{name} of shape {list(image.shape)} cannot be encoded: {one_line(error)}") from None
    return encoded.tobytes()
