"""`read_samples`: an image at the depth and with the bands that a model takes, as its preprocessing needs them."""

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ortcam.errors import ImageError, OptionError
from ortcam.images.arrays import as_array, described, is_array
from ortcam.images.decoding import decode, upright
from ortcam.images.encoded import Encoded, encoded_of
from ortcam.images.formats.accepted import ACCEPTED, read_header
from ortcam.images.limits import check_cost, check_max_pixels, check_pixels, check_strict, check_white
from ortcam.images.preprocessing import Preprocessing
from ortcam.images.reading import ImageSource, read_image
from ortcam.images.resampling.channels import weighed, weighed_by_opencv, weighed_samples

__all__ = ["read_samples"]

_KEPT: Final = (np.uint8, np.uint16, np.int16, np.float32)
_OF_A_PICTURE: Final = (1, 3, 4)  # bands of an image that becomes RGB or grey


def read_samples(
    source: ImageSource | Encoded,
    preprocessing: Preprocessing,
    *,
    max_pixels: int,
    white: int | None = None,
    strict: bool = False,
) -> NDArray[Any]:
    """Read an image as a model's preprocessing takes it.

    Args:
        source: as `read_image` takes it, or the bytes of a file that has been read.
        preprocessing: of the model.
        max_pixels: as of `read_image`.
        white: as of `read_image`; only for a model without a `value_range`.
        strict: as of `read_image`.

    Returns:
        uint8 [H, W, 3] RGB. Where the preprocessing `needs_samples`: [H, W, C] of uint8, uint16, int16 or float32, all
        finite: the bands of the image, or its grey, or its RGB.

    Raises:
        ImageError: as `read_image`; or an image with another number of bands, or with samples that are not finite.
        OptionError: `white` for a model with a `value_range`.
    """
    if not preprocessing.needs_samples:
        if isinstance(source, Encoded):
            return decode(source, max_pixels, white, strict=strict)
        return read_image(source, max_pixels=max_pixels, white=white, strict=strict)
    check_max_pixels(max_pixels)
    check_strict(strict)
    if check_white(white) is not None:
        assert preprocessing.value_range is not None
        low, high = preprocessing.value_range
        raise OptionError(
            f"white={white}: this model takes samples as they are, from {low:g} to {high:g}; accepted is None"
        )
    encoded = source if isinstance(source, Encoded) else encoded_of(source, max_pixels)
    if encoded is not None:
        samples, name = _decoded(encoded, max_pixels), encoded.name
    elif is_array(source):
        samples, name = _of_array(source, preprocessing, max_pixels), described(source)
    else:
        raise ImageError(
            f"an image with samples of more than 8 bits, or with bands, cannot be read from {type(source).__name__}: "
            "give a path, the bytes of a file, a binary file object, an array or a tensor"
        )
    return _fitted(_kept(samples, name), preprocessing, name)


def _decoded(encoded: Encoded, max_pixels: int) -> NDArray[Any]:
    """The samples of a file at its depth, [H, W, B], RGB."""
    data, name = encoded.take(), encoded.name
    if not data:
        raise ImageError(f"{name} is empty: 0 bytes; {ACCEPTED}")
    header = read_header(data, name)
    check_cost(header, len(data), name, max_pixels)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise ImageError(f"{name} cannot be decoded by OpenCV {cv2.__version__}; {ACCEPTED}")
    samples = np.asarray(decoded)
    if samples.ndim == 3 and samples.shape[2] in (3, 4):
        samples = samples[..., [2, 1, 0, 3][: samples.shape[2]]]
    return upright(samples, header.orientation)


def _of_array(source: Any, preprocessing: Preprocessing, max_pixels: int) -> NDArray[Any]:
    """The samples of an array, [H, W, B], a view of it."""
    shape, name = tuple(getattr(source, "shape", ())), described(source)
    counts = (preprocessing.channels,) if preprocessing.channel_order == "bands" else _OF_A_PICTURE
    said = " or ".join(map(str, counts))
    accepted = f"accepted: numbers as [H, W, C] or [C, H, W], C = {said}" + (", or [H, W]" if 1 in counts else "")
    if 0 in shape or len(shape) not in ((2, 3) if 1 in counts else (3,)):
        raise ImageError(f"{name} has the shape of no image of this model; {accepted}")
    first, last = (len(shape) == 3 and shape[axis] in counts for axis in (0, 2))
    if first and last:
        raise ImageError(f"{name} may have its channels first or last; {accepted}, H and W other than C")
    if len(shape) == 3 and not first and not last:
        raise ImageError(f"{name} has the bands of no image of this model; {accepted}")
    height, width = shape[1:] if first else shape[:2]
    check_pixels(height, width, name, max_pixels)
    array = as_array(source)
    return array[..., None] if array.ndim == 2 else array.transpose(1, 2, 0) if first else array


def _kept(samples: NDArray[Any], name: str) -> NDArray[Any]:
    """Samples in a type that preprocessing takes, checked to be numbers, [H, W, B]."""
    if samples.ndim == 2:
        samples = samples[..., None]
    if samples.dtype.kind not in "uif":
        raise ImageError(f"{name} has samples of {samples.dtype}; accepted: whole numbers and floats")
    if samples.dtype not in _KEPT:
        with np.errstate(over="ignore"):
            samples = samples.astype(np.float32)
    if samples.dtype.kind == "f" and not np.isfinite(samples).all():
        raise ImageError(f"{name} has samples that are infinite or not a number; accepted: finite numbers")
    return samples


def _fitted(samples: NDArray[Any], preprocessing: Preprocessing, name: str) -> NDArray[Any]:
    """The channels that the preprocessing takes, of an image with B bands: [H, W, C], C-contiguous."""
    found, wanted, order = samples.shape[2], preprocessing.channels, preprocessing.channel_order
    accepted = (wanted,) if order == "bands" else _OF_A_PICTURE
    if found not in accepted:
        said = " or ".join(map(str, accepted))
        raise ImageError(f"{name} has {found} bands; this model takes {said}")
    if order == "bands" or found == wanted:
        return np.ascontiguousarray(samples)
    if order in ("rgb", "bgr"):
        return np.repeat(samples, 3, axis=2) if found == 1 else np.ascontiguousarray(samples[..., :3])
    if samples.dtype == np.uint8:
        return weighed_by_opencv(samples[..., :3]) if order == "grey-opencv" else weighed(samples[..., :3])
    return weighed_samples(samples[..., :3])
