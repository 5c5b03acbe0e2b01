"""`read_samples`: an image at the depth and with the bands that a model takes, as its preprocessing needs them."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.errors import ImageError, OptionError
from ortcam.images.arrays.bands import bands_axis, kept, kept_type, with_bands_last
from ortcam.images.arrays.files import is_array_file, read_array_file
from ortcam.images.arrays.pixels import as_array, described, is_array, is_pillow, pillow_pixels
from ortcam.images.decoding import decode, decode_deep, oriented
from ortcam.images.encoded import Encoded, encoded_of
from ortcam.images.formats.accepted import ACCEPTED, HEAD
from ortcam.images.formats.tiff.bands import check_bands, check_nodata, decode_bands
from ortcam.images.formats.tiff.bands_header import is_tiff, read_bands_header
from ortcam.images.limits import check_max_pixels, check_pixels, check_strict, check_white
from ortcam.images.preprocessing import Preprocessing
from ortcam.images.reading import ImageSource, read_image
from ortcam.images.resampling.channels import weighed, weighed_by_opencv, weighed_samples
from ortcam.support.words import counted

__all__ = ["read_samples"]

_OF_A_PICTURE: Final = (1, 3, 4)  # bands of an image that becomes RGB or grey
_RGB: Final = 3
_WITH_ALPHA: Final = (2, 4)  # bands of a PNG file with alpha


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
    if encoded is not None and not encoded.data:
        raise ImageError(f"{encoded.name} is empty: 0 bytes; {ACCEPTED}")
    if encoded is not None:
        samples, name = _of_file(encoded, preprocessing, max_pixels, strict=strict), encoded.name
    elif is_pillow(source):
        samples, name = _of_pillow(source, preprocessing, max_pixels)
    elif is_array(source):
        samples, name = _of_array(source, preprocessing, max_pixels)
    else:
        raise ImageError(
            f"an image cannot be read from {type(source).__name__}: give a path, the bytes of a file, a binary file "
            "object, an array, a tensor or a Pillow image"
        )
    return _fitted(kept(samples, name), preprocessing, name)


def _counts(preprocessing: Preprocessing) -> tuple[int, ...]:
    """How many bands an image may have."""
    return (preprocessing.channels,) if preprocessing.channel_order == "bands" else _OF_A_PICTURE


def _check_count(found: int, preprocessing: Preprocessing, name: str) -> None:
    counts = _counts(preprocessing)
    if found not in counts:
        raise ImageError(
            f"{name} has {counted(found, 'band')}, and this model takes {' or '.join(map(str, counts))}: give an image "
            "with its bands, such as a TIFF file or a .npy array [H, W, C]"
        )


def _of_file(encoded: Encoded, preprocessing: Preprocessing, max_pixels: int, *, strict: bool) -> NDArray[Any]:
    """The samples of a file at its depth, upright, [H, W, B]: grey, RGB, RGBA, or its bands."""
    head, counts = encoded.data[:HEAD], _counts(preprocessing)
    if is_array_file(head):
        array, name = read_array_file(
            encoded.take(), encoded.name, max_pixels, lambda shape, name: bands_axis(shape, counts, name)[:2]
        )
        return with_bands_last(array, bands_axis(array.shape, counts, name)[2])
    header = None
    if is_tiff(head):
        header = read_bands_header(encoded.data, encoded.name)
    if header is not None and header.inks and preprocessing.channel_order != "bands":
        header = None  # as a picture is read: inks become RGB
    if header is None:
        alpha = preprocessing.channel_order == "bands" and preprocessing.channels in _WITH_ALPHA
        samples = decode_deep(encoded, max_pixels, alpha=alpha, strict=strict)
        _check_count(samples.shape[2], preprocessing, encoded.name)
        return samples
    bands = header.bands
    if header.alpha and (preprocessing.channel_order != "bands" or preprocessing.channels == bands - 1):
        bands -= 1
    if not (header.colours and preprocessing.channel_order != "bands"):  # RGB and more is RGB
        _check_count(bands, preprocessing, encoded.name)
    dtype = kept_type(header.dtype)
    check_bands(header, len(encoded.data), dtype, encoded.name, max_pixels)
    samples = decode_bands(encoded.take(), header, dtype, encoded.name)
    check_nodata(samples, header.nodata, preprocessing.value_range, encoded.name)
    return oriented(samples, header.orientation)[..., :bands]


def _of_pillow(source: Any, preprocessing: Preprocessing, max_pixels: int) -> tuple[NDArray[Any], str]:
    """The samples of a Pillow image, upright, [H, W, B], and its name."""

    def check_size(width: int, height: int, name: str) -> None:
        check_pixels(height, width, name, max_pixels)

    if source.mode in {"F", "I"}:  # samples of 32 bits, which are taken as they are
        name = f"Pillow image of mode {source.mode!r}"
        check_size(source.width, source.height, name)
        return np.asarray(source)[..., None], name
    bands = preprocessing.channels if preprocessing.channel_order == "bands" else None
    pixels, orientation, name = pillow_pixels(source, check_size, bands=bands)
    grey = pixels.ndim == 3 and pixels.shape[2] == _RGB and source.mode in {"1", "L", "LA"}
    samples: NDArray[Any] = pixels[..., None] if pixels.ndim == 2 else pixels[..., :1] if grey else pixels
    return oriented(samples, orientation), name


def _of_array(source: Any, preprocessing: Preprocessing, max_pixels: int) -> tuple[NDArray[Any], str]:
    """The samples of an array, [H, W, B], a view of it, and its name."""
    counts = _counts(preprocessing)
    shape = getattr(source, "shape", None)
    if isinstance(shape, tuple) and hasattr(source, "dtype"):  # before anything is copied
        name = described(source)
        check_pixels(*bands_axis(shape, counts, name)[:2], name, max_pixels)
    array = as_array(source)
    name = described(array)
    height, width, axis = bands_axis(array.shape, counts, name)
    check_pixels(height, width, name, max_pixels)
    return with_bands_last(array, axis), name


def _fitted(samples: NDArray[Any], preprocessing: Preprocessing, name: str) -> NDArray[Any]:
    """The channels that the preprocessing takes, of an image with B bands: [H, W, C], C-contiguous."""
    found, order = samples.shape[2], preprocessing.channel_order
    if order == "bands" or found == preprocessing.channels:
        _check_count(found, preprocessing, name)
        return np.ascontiguousarray(samples)
    if order in ("rgb", "bgr"):
        return np.repeat(samples[..., :1], 3, axis=2) if found < 3 else np.ascontiguousarray(samples[..., :3])
    if found < 3:
        return np.ascontiguousarray(samples[..., :1])
    if samples.dtype == np.uint8:
        return weighed_by_opencv(samples[..., :3]) if order == "grey-opencv" else weighed(samples[..., :3])
    return weighed_samples(samples[..., :3])
