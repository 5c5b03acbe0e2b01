"""Numbers of any array that is a picture become RGB of 8 bits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ortcam.errors import ImageError
from ortcam.images.arrays.pixels import ACCEPTED_ARRAYS, float_to_rgb, layout, uint8_to_rgb
from ortcam.images.formats.header import levels

__all__ = ["array_to_rgb", "check_rgb", "sixteen_bit_table"]


def check_rgb(shape: tuple[int, ...], name: str) -> tuple[int, int]:
    """Height and width of an array that is to become RGB.

    Raises:
        ImageError: no picture has this shape, or two different ones may have it.
    """
    return layout(shape, name)[:2]


def array_to_rgb(array: NDArray[Any], name: str, white: int | None) -> NDArray[np.uint8]:
    """RGB of bytes, of floats from 0 to 1, or of 16 bits with `white`: uint8 [H, W, 3].

    Raises:
        ImageError: it has another type, shape or range.
    """
    axis = layout(array.shape, name)[3]
    if array.dtype == np.uint8:
        return uint8_to_rgb(array, axis)
    if array.dtype.kind == "f":
        return float_to_rgb(array, axis, name)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2 and white is not None:
        return uint8_to_rgb(sixteen_bit_table(white)[array], axis)
    scale = ""
    if array.dtype.kind in "ui":
        scale = "; scale it first, such as (array * (255 / white)).clip(0, 255).astype(np.uint8)"
        scale += ", or say what is white: white=4095 for 12 bits" if array.dtype.itemsize == 2 else ""
    raise ImageError(f"{name} is not an image; {ACCEPTED_ARRAYS}{scale}")


def sixteen_bit_table(white: int | None) -> NDArray[np.uint8]:
    """What samples of 16 bits become: their upper 8 bits, or 255 from `white` on; uint8 [65536]."""
    if white is None:
        # OpenCV's own reduction rounds in some formats and shifts in others.
        return (np.arange(1 << 16) >> 8).astype(np.uint8)
    return levels(white, 1 << 16)
