"""What the channels of a model are: RGB, grey or bands; grey of RGB, and what is shown of any bands."""

import math
from collections.abc import Iterator
from typing import Any, Final, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from ortcam.errors import OptionError

__all__ = [
    "CHANNEL_ORDERS",
    "GREYS",
    "MOST_CHANNELS",
    "PLANES",
    "SHOWN_PERCENTILES",
    "ChannelOrder",
    "checked_display",
    "checked_moments",
    "checked_range",
    "is_number",
    "stretched",
    "weighed",
    "weighed_by_opencv",
    "weighed_samples",
]

ChannelOrder = Literal["rgb", "bgr", "grey", "grey-opencv", "bands"]
CHANNEL_ORDERS: Final = get_args(ChannelOrder)
PLANES: Final = {"rgb": (0, 1, 2), "bgr": (2, 1, 0)}  # which plane of an RGB image each channel of the model is
MOST_CHANNELS: Final = 64
SHOWN_PERCENTILES: Final = (2.0, 98.0)  # of a band's samples: what becomes black, and what becomes white
_BLOCK: Final = 1 << 20  # samples that are converted at a time
_RED, _GREEN, _BLUE, _HALF, _BITS = 19595, 38470, 7471, 1 << 15, 16  # Pillow's L24, src/libImaging/Convert.c

_BYTES: Final = (0.0, 255.0)


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


GREYS: Final = {"grey": weighed, "grey-opencv": weighed_by_opencv}


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
    low, high = _percentiles(plane)
    if not low < high:
        low, high = float(plane.min()), float(plane.max())
    if not low < high:
        out[:] = 0
        return
    step = max(1, _BLOCK // plane.shape[1])
    for first in range(0, len(plane), step):
        levels = (plane[first : first + step].astype(np.float64) - low) / (high - low) * 255
        out[first : first + step] = np.rint(levels).clip(0, 255)


def _percentiles(plane: NDArray[Any]) -> Iterator[float]:
    """The `SHOWN_PERCENTILES` as `np.percentile` has them, but in float64: differences of int16 overflow in int16."""
    places = [(plane.size - 1) * (percent / 100) for percent in SHOWN_PERCENTILES]
    below = [int(place) for place in places]
    above = [min(index + 1, plane.size - 1) for index in below]
    ordered = np.partition(plane, sorted({*below, *above}), axis=None)
    for place, first, second in zip(places, below, above, strict=True):
        low, high = float(ordered[first]), float(ordered[second])
        yield low + (high - low) * (place - first)


def checked_moments(order: ChannelOrder, mean: Any, std: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std as tuples of one number per channel.

    Raises:
        OptionError: they are something else; says how many numbers are expected.
    """
    count = 3 if order in PLANES else 1 if order in GREYS else None
    for name, value, sign in (("mean", mean, "finite"), ("std", std, "positive")):
        if count is None and name == "std":
            count = len(mean)
        listed = isinstance(value, tuple | list) and all(map(is_number, value))
        fits = listed and (1 <= len(value) <= MOST_CHANNELS if count is None else len(value) == count)
        if not fits or (name == "std" and min(value) <= 0):
            many = {None: f"1 to {MOST_CHANNELS}", 1: "one", 3: "three"}.get(count, count)
            expected = f"{many} {sign} number{'' if count == 1 else 's'}, one per channel"
            raise OptionError(f"preprocessing {name}={value!r}: expected {expected}")
    return tuple(map(float, mean)), tuple(map(float, std))  # JSON gives lists


def checked_range(order: ChannelOrder, value_range: Any) -> tuple[float, float] | None:
    """Return the range of samples; that of bytes for bands that were given none.

    Raises:
        OptionError: no two finite numbers, the lower one first.
    """
    if value_range is None:
        return _BYTES if order == "bands" else None
    if isinstance(value_range, tuple | list) and len(value_range) == 2 and all(map(is_number, value_range)):
        low, high = map(float, value_range)
        if 0 < high - low < math.inf:
            return low, high
    raise OptionError(f"preprocessing value_range={value_range!r}: expected two finite numbers, the lower one first")


def checked_display(display: Any, channels: int, value_range: tuple[float, float] | None) -> tuple[int, ...] | None:
    """Return the bands that are shown as a tuple.

    Raises:
        OptionError: no one or three of the bands; or images are 8-bit levels, which are shown as they are.
    """
    if display is None:
        return None
    if value_range is None:
        raise OptionError(
            f"preprocessing display={display!r}: expected none, since images of 8 bits are shown as they are; bands "
            "are chosen only with a value_range"
        )
    listed = isinstance(display, tuple | list) and len(display) in (1, 3)
    if not listed or not all(type(band) is int and 0 <= band < channels for band in display):
        raise OptionError(f"preprocessing display={display!r}: expected one or three of the bands 0 to {channels - 1}")
    return tuple(display)


def is_number(value: object) -> bool:
    """Tell whether a value is a finite number, and neither True nor False."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond float64
        return False
