"""Arrays of any number of bands: which axis they are, and samples in a type that preprocessing takes."""

import math
from collections.abc import Collection
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.errors import ImageError
from ortcam.images.arrays.pixels import row_blocks

__all__ = ["bands_axis", "kept", "kept_type", "memory_of_samples", "with_bands_last"]

_KEPT: Final = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.int16), np.dtype(np.float32))


def bands_axis(shape: tuple[int, ...], counts: Collection[int], name: str) -> tuple[int, int, int | None]:
    """Find height, width and bands in the shape of an array.

    Args:
        shape: of the array.
        counts: of bands that are accepted.
        name: of the array, for messages.

    Returns:
        Height, width, and which axis the bands are: 0, 2, or None for [H, W].

    Raises:
        ImageError: no image with so many bands has this shape, or two different ones may have it.
    """
    said = ", ".join(map(str, sorted(counts)))
    accepted = "accepted: [H, W] or " if 1 in counts else "accepted: "
    accepted += f"[H, W, C] or [C, H, W], where C, the number of bands, is {said}"
    if len(shape) == 4:
        raise ImageError(f"{name} is a batch, and this takes one image: give array[0], say; {accepted}")
    if 0 in shape or len(shape) not in {2, 3}:
        raise ImageError(f"{name} has the shape of no image; {accepted}")
    if len(shape) == 2:
        if 1 not in counts:
            raise ImageError(f"{name} has one band; {accepted}")
        return shape[0], shape[1], None
    first, last = shape[0] in counts, shape[2] in counts
    if first and last:
        raise ImageError(
            f"{name} may have its bands first or last: give an image whose height and width are other than its number "
            f"of bands; {accepted}"
        )
    if not first and not last:
        raise ImageError(f"{name} has another number of bands; {accepted}")
    return (shape[1], shape[2], 0) if first else (shape[0], shape[1], 2)


def with_bands_last(array: NDArray[Any], axis: int | None) -> NDArray[Any]:
    """A view of an array as [H, W, C]; `axis` as `bands_axis` gives it."""
    if axis is None:
        return array[..., None]
    return array.transpose(1, 2, 0) if axis == 0 else array


def kept_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type that samples of a type are kept as: uint8, uint16, int16 or float32, in the machine's byte order."""
    native = dtype.newbyteorder("=")
    if native.kind == "b":
        return np.dtype(np.uint8)
    return native if native in _KEPT else np.dtype(np.float32)


def memory_of_samples(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """Bytes that `kept` takes beside the array, at most: another type, and C order."""
    size = math.prod(shape) * kept_type(dtype).itemsize
    return size if kept_type(dtype) == dtype else 2 * size


def kept(samples: NDArray[Any], name: str) -> NDArray[Any]:
    """Samples in a type that preprocessing takes.

    Args:
        samples: [H, W, C] of any whole numbers, floats or bools.
        name: of them, for messages.

    Returns:
        [H, W, C] of uint8, uint16, int16 or float32, all finite; as they are, where they are so.

    Raises:
        ImageError: they are no real numbers, or some are infinite, not a number, or too large for float32.
    """
    if samples.dtype.kind not in "buif":
        raise ImageError(f"{name} has samples of {samples.dtype}; accepted: whole numbers and floats")
    with np.errstate(over="ignore", invalid="ignore"):
        found = samples.astype(kept_type(samples.dtype), copy=False)
    if found.dtype.kind == "f":
        check_finite(found, name)
    return found


def check_finite(samples: NDArray[Any], name: str) -> None:
    """Refuse samples that are no numbers to compute with.

    Raises:
        ImageError: some are infinite or not a number; the message says how many.
    """
    wrong = sum(int(np.count_nonzero(~np.isfinite(samples[rows]))) for rows in row_blocks(samples))
    if wrong:
        raise ImageError(
            f"{name} has {wrong} of {samples.size} samples that are infinite or not a number: fill them in first, say "
            "by np.nan_to_num, and save it as .npy"
        )
