"""Pixels that a program holds: arrays, tensors and Pillow images become upright uint8 RGB."""

import math
import sys
from collections.abc import Callable
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ortcam.errors import ImageError
from ortcam.images.formats.header import exif_orientation
from ortcam.support.terminal import one_line

__all__ = [
    "ACCEPTED_ARRAYS",
    "BLOCK",
    "ArrayLike",
    "PillowImage",
    "as_array",
    "described",
    "float_to_rgb",
    "is_array",
    "is_pillow",
    "layout",
    "pillow_pixels",
    "row_blocks",
    "uint8_to_rgb",
]

ACCEPTED_ARRAYS: Final = (
    "accepted: uint8, or floats from 0 to 1, as [H, W, 3] RGB, [H, W, 4] RGBA, [H, W] or [H, W, 1] grey, or with the "
    "channels first, [3, H, W]"
)
_CHANNELS: Final = {1, 3, 4}
BLOCK: Final = 1 << 20  # samples that are converted at a time
_SIXTEEN_BITS: Final = {"I;16", "I;16L", "I;16B", "I;16N"}


@runtime_checkable
class ArrayLike(Protocol):
    """What numpy can make an array of: a torch tensor on any device, an array of JAX or TensorFlow."""

    def __array__(self) -> NDArray[Any]: ...


class PillowImage(Protocol):
    """A `PIL.Image.Image`, by what it offers to numpy; Pillow itself is never imported."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


def is_pillow(source: object) -> bool:
    """Tell whether an object is an image of Pillow. Pillow is not imported: an image of it cannot exist before that."""
    kind = getattr(sys.modules.get("PIL.Image"), "Image", None)
    return isinstance(kind, type) and isinstance(source, kind)


def is_array(source: object) -> bool:
    """Tell whether an object is an array or a tensor of some library."""
    return isinstance(source, np.ndarray) or any(
        hasattr(type(source), name) for name in ("__array__", "__array_interface__", "__dlpack__")
    )


def as_array(source: Any) -> NDArray[Any]:
    """Take the values of an array or a tensor, without a copy where that is possible.

    Torch is not imported: a tensor of it cannot exist before that. Its tensors may need gradients, lie on a GPU, or be
    bfloat16 (then they become float32).

    Args:
        source: for which `is_array` holds.

    Raises:
        ImageError: the library that made it gives no array.
    """
    if isinstance(source, np.ndarray):
        return np.asarray(source)
    try:
        tensor = getattr(sys.modules.get("torch"), "Tensor", None)
        if isinstance(tensor, type) and isinstance(source, tensor):
            array = _of_torch(source)
        elif hasattr(source, "__array__") or hasattr(source, "__array_interface__"):
            array = np.asarray(source)
        else:
            array = np.from_dlpack(source)
        # JAX and TensorFlow have bfloat16, which numpy knows by the name alone.
        return array.astype(np.float32) if array.dtype.name == "bfloat16" else array
    except Exception as error:  # noqa: BLE001 - whatever another library raises
        raise ImageError(
            f"{type(source).__module__}.{type(source).__qualname__} gives no array ({one_line(error)}); give a numpy "
            "array of it"
        ) from None


def _of_torch(tensor: Any) -> NDArray[Any]:
    tensor = tensor.detach()
    if str(tensor.dtype) == "torch.bfloat16":
        tensor = tensor.float()
    array: NDArray[Any] = tensor.cpu().numpy()
    return array


def described(source: Any) -> str:
    """Name an array in a message by its type and shape: "array of uint8 [4, 5, 3]"."""
    dtype = str(source.dtype).removeprefix("torch.")
    return f"array of {dtype} {list(source.shape)}"


def layout(shape: tuple[int, ...], name: str) -> tuple[int, int, int, int | None]:
    """Find height, width and channels in the shape of an array.

    Args:
        shape: of the array.
        name: of the array, for messages.

    Returns:
        Height, width, channels, and which axis the channels are: 0, 2, or None for [H, W].

    Raises:
        ImageError: no image has this shape, or two different ones may have it.
    """
    if len(shape) == 4 and shape[0] > 0:
        raise ImageError(
            f"{name} is a batch, and this takes one image: give list(array), which gives a list back; {ACCEPTED_ARRAYS}"
        )
    if len(shape) == 1:
        raise ImageError(
            f"{name} has one dimension, and no image has: give array.tobytes() if it holds the bytes of a file; "
            f"{ACCEPTED_ARRAYS}"
        )
    first, last = len(shape) == 3 and shape[0] in _CHANNELS, len(shape) == 3 and shape[2] in _CHANNELS
    if 0 in shape or not (len(shape) == 2 or first or last):
        raise ImageError(f"{name} has the shape of no image; {ACCEPTED_ARRAYS}")
    if first and last:
        raise ImageError(
            f"{name} may have its channels first or last: give an image whose height and width are larger than 4; "
            f"{ACCEPTED_ARRAYS}"
        )
    if len(shape) == 2:
        return shape[0], shape[1], 1, None
    return (shape[1], shape[2], shape[0], 0) if first else (shape[0], shape[1], shape[2], 2)


def uint8_to_rgb(array: NDArray[np.uint8], axis: int | None) -> NDArray[np.uint8]:
    """Make RGB of bytes: uint8 [H, W, 3], C-contiguous. RGB that is so already is returned, not copied.

    Args:
        array: uint8, as `layout` has found it.
        axis: of the channels.
    """
    pixels = _channels_last(array, axis)
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels[..., :3])


def float_to_rgb(array: NDArray[Any], axis: int | None, name: str) -> NDArray[np.uint8]:
    """Make RGB of floats from 0 to 1, each rounded to a level of 255: uint8 [H, W, 3].

    Args:
        array: of floats, as `layout` has found it.
        axis: of the channels.
        name: of the array, for messages.

    Raises:
        ImageError: a value is not finite, or rounds to a level outside of 0 to 255.
    """
    pixels = _channels_last(array, axis)[..., :3]
    rgb = np.empty((*pixels.shape[:2], 3), np.uint8)
    for rows in row_blocks(pixels):
        with np.errstate(over="ignore", invalid="ignore"):
            found = np.rint(pixels[rows].astype(np.float32) * np.float32(255))
        if not (found.min() >= 0 and found.max() <= 255):  # not a number is neither
            raise ImageError(_out_of_range(pixels, name))
        rgb[rows] = found.astype(np.uint8)
    return rgb


def _out_of_range(pixels: NDArray[Any], name: str) -> str:
    least, most = float(pixels.min()), float(pixels.max())
    if not np.isfinite([least, most]).all():
        return f"{name} has values that are infinite or not a number: floats mean 0 (black) to 1 (white)"
    instead = "divide it by 255, or make it uint8"
    if least < 0 or most > 255.5:
        instead = (
            "undo its normalisation, or give it as preprocessed= if it is what the model's own preprocessing gives"
        )
    return f"{name} has values from {least:.4g} to {most:.4g}, and floats mean 0 (black) to 1 (white): {instead}"


def pillow_pixels(
    source: Any, check_size: Callable[[int, int, str], None], *, bands: int | None = None
) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], int, str]:
    """Take the pixels of a Pillow image: those that its file would give.

    Args:
        source: a `PIL.Image.Image`, in any mode.
        check_size: called with width, height and name before anything is decoded, to refuse what is too large.
        bands: how many bands are wanted, where they are no colours: alpha and inks are kept where that gives as many.

    Returns:
        uint8 [H, W, 3] RGB, or [H, W, bands], or grey of 16 bits, uint16 [H, W]; the EXIF orientation that is still to
        be undone; and a name for messages.

    Raises:
        ImageError: Pillow cannot decode it, or its values have no known white.
    """
    filename = getattr(source, "filename", "")
    name = f"Pillow image of mode {source.mode!r}" + (f" from {str(filename)!r}" if filename else "")
    check_size(source.width, source.height, name)
    try:
        source.load()
        block = source.info.get("exif", b"")
        orientation = exif_orientation(block) if isinstance(block, bytes) else 1
        kept = None if bands is None else _all_bands(source, bands)
        return _pillow_samples(source, name) if kept is None else kept, orientation, name
    except ImageError:
        raise
    except Exception as error:  # noqa: BLE001 - decoders of Pillow raise errors of many kinds
        raise ImageError(f"{name} cannot be decoded by Pillow ({one_line(error)})") from None


def _all_bands(source: Any, bands: int) -> NDArray[np.uint8] | None:
    """The bands of an image with alpha or inks, uint8 [H, W, bands], as its file has them; None of other images."""
    inks = source.mode == "CMYK" and source.format not in {"JPEG", "MPO"}  # which are read as pictures
    if source.mode not in {"LA", "RGBA"} and not inks:
        return None
    samples = np.asarray(source, np.uint8)
    return samples if samples.shape[2] == bands else None


def _pillow_samples(source: Any, name: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    if source.mode == "RGB":
        return np.asarray(source, np.uint8)
    if source.mode == "L":
        return uint8_to_rgb(np.asarray(source, np.uint8), None)
    if source.mode in _SIXTEEN_BITS:
        return np.asarray(source).astype(np.uint16, copy=False)
    if source.mode == "I":  # what Pillow makes of some files of 16 bits
        values = np.asarray(source)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(
                f"{name} has values from {values.min()} to {values.max()}: accepted are 0 to 65535 in this mode"
            )
        return values.astype(np.uint16)
    if source.mode == "F":
        return float_to_rgb(np.asarray(source), None, name)
    if source.mode == "CMYK" and source.format in {"JPEG", "MPO"}:
        return _opencv_cmyk(np.asarray(source))
    return np.asarray(source.convert("RGB"), np.uint8)


def _opencv_cmyk(inks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB of a JPEG in CMYK as OpenCV computes it, within 1 of Pillow (`icvCvt_CMYK2BGR_8u_C4C3R`, utils.cpp)."""
    rgb = np.empty((*inks.shape[:2], 3), np.uint8)
    for rows in row_blocks(inks):
        light = (255 - inks[rows, :, 3:]).astype(np.uint16)
        rgb[rows] = light - (inks[rows, :, :3] * light >> 8)
    return rgb


def _channels_last(array: NDArray[Any], axis: int | None) -> NDArray[Any]:
    if axis is None:
        return array[..., None]
    return array.transpose(1, 2, 0) if axis == 0 else array


def row_blocks(pixels: NDArray[Any]) -> list[slice]:
    """Divide the rows of an image: at least one each, and about a million samples, so that no copy of all is made."""
    step = max(1, BLOCK // math.prod(pixels.shape[1:]))
    return [slice(first, first + step) for first in range(0, len(pixels), step)]
