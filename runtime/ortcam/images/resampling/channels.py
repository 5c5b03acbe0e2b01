"""From the samples of an image to grey, and from any bands to what is shown of them."""

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["SHOWN_PERCENTILES", "stretched", "weighed", "weighed_by_opencv", "weighed_samples"]

SHOWN_PERCENTILES: Final = (2.0, 98.0)  # of a band's samples: what becomes black, and what becomes white
_BLOCK: Final = 1 << 20  # samples that are converted at a time
_RED, _GREEN, _BLUE, _HALF, _BITS = 19595, 38470, 7471, 1 << 15, 16  # Pillow's L24, src/libImaging/Convert.c


def weighed(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey as Pillow's `convert("L")` weighs it: uint8 [H, W, 3] RGB -> uint8 [H, W, 1]."""
    grey = np.empty((*image.shape[:2], 1), np.uint8)
    step = max(1, _BLOCK // max(image.shape[1], 1))
    for first in range(0, len(image), step):
        red, green, blue = (image[first : first + step, :, channel].astype(np.uint32) for channel in range(3))
        grey[first : first + step, :, 0] = (red * _RED + green * _GREEN + blue * _BLUE + _HALF) >> _BITS
    return grey


def weighed_by_opencv(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey as OpenCV's `cvtColor(image, COLOR_RGB2GRAY)` weighs it: uint8 [H, W, 3] RGB -> uint8 [H, W, 1]."""
    return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)[..., None]


def weighed_samples(samples: NDArray[Any]) -> NDArray[np.float32]:
    """Grey of RGB samples that are no bytes, with Pillow's weights and unrounded: [H, W, 3] -> float32 [H, W, 1]."""
    grey = np.empty((*samples.shape[:2], 1), np.float32)
    step = max(1, _BLOCK // max(samples.shape[1], 1))
    for first in range(0, len(samples), step):
        red, green, blue = (samples[first : first + step, :, channel].astype(np.float64) for channel in range(3))
        grey[first : first + step, :, 0] = (red * _RED + green * _GREEN + blue * _BLUE) / (1 << _BITS)
    return grey


def stretched(samples: NDArray[Any], bands: tuple[int, ...]) -> NDArray[np.uint8]:
    """Show one band as grey, or three as RGB: each from its 2nd percentile, which is black, to its 98th, white.

    Samples beyond them are black or white. A band whose two percentiles are equal is stretched between its least and
    its largest sample; one that is flat everywhere is black.

    Args:
        samples: [H, W, C] of any numbers, finite.
        bands: which of the C, one or three.

    Returns:
        uint8 [H, W, 3].
    """
    shown = np.empty((*samples.shape[:2], 3), np.uint8)
    for place, band in enumerate(bands):
        _stretch(samples[..., band], shown[..., place])
    if len(bands) == 1:
        shown[..., 1:] = shown[..., :1]
    return shown


def _stretch(plane: NDArray[Any], out: NDArray[np.uint8]) -> None:
    low, high = (float(value) for value in np.percentile(plane, SHOWN_PERCENTILES))
    if not low < high:
        low, high = float(plane.min()), float(plane.max())
    if not low < high:
        out[:] = 0
        return
    step = max(1, _BLOCK // plane.shape[1])
    for first in range(0, len(plane), step):
        levels = (plane[first : first + step].astype(np.float64) - low) / (high - low) * 255
        out[first : first + step] = np.rint(levels).clip(0, 255)
