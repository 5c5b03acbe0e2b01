"""`read_image`: a file, its bytes, an array or a Pillow image becomes upright uint8 RGB."""

import os
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ortcam.errors import ImageError
from ortcam.images.arrays.pixels import (
    ArrayLike,
    PillowImage,
    as_array,
    described,
    is_array,
    is_pillow,
    layout,
    pillow_pixels,
    uint8_to_rgb,
)
from ortcam.images.arrays.rgb import array_to_rgb, sixteen_bit_table
from ortcam.images.decoding import decode, upright, warn_if_dark
from ortcam.images.encoded import encoded_of
from ortcam.images.limits import DEFAULT_MAX_PIXELS, check_max_pixels, check_pixels, check_strict, check_white

__all__ = ["ImageSource", "read_image"]

# All that `read_image` reads. A torch tensor and the arrays of JAX and TensorFlow are `ArrayLike`.
ImageSource = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | NDArray[Any] | ArrayLike | PillowImage
)


def read_image(
    source: ImageSource,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    white: int | None = None,
    strict: bool = False,
) -> NDArray[np.uint8]:
    """Read an image as upright RGB: the pixels that Pillow's `exif_transpose(open(...)).convert("RGB")` gives.

    **Files** may be JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or PNM (PBM, PGM, PPM). Their first bytes tell which. Before
    anything is decoded, the whole header is read: size, depth, orientation, and whether the file is complete. Other
    formats are refused by name, and so are BigTIFF, TIFF of floating-point samples and 12-bit JPEG. GIF and AVIF need
    an OpenCV that decodes them (the wheels do from 4.12). Arrays of NumPy in `.npy` and `.npz` files are read as the
    arrays below; a `.npz` file has one array, or one named `image` or `arr_0`. Models that take samples at the depth of
    the file (`Preprocessing.needs_samples`) read more: BigTIFF, TIFF of floats, and any number of bands.

    Grey becomes RGB, and alpha is dropped, as `convert("RGB")` does. Animations and files of several pages give their
    first image. Of EXIF only the orientation counts, in JPEG, PNG (eXIf), WebP and TIFF; of AVIF its own rotation and
    mirroring. Known differences from Pillow: CMYK in JPEG is within 1 of 255. So are photographs in AVIFs of 10 or 12
    bits (not noise). TIFFs with associated alpha come composited on black. XMP does not count.

    **Pixels that the program holds** may be an array of numpy, PyTorch, JAX or TensorFlow, or a `PIL.Image.Image`:

    - uint8: 0 is black and 255 is white.
    - floats: 0 is black and 1 is white. A value that does not round to one of the 256 levels is an error.
    - uint16: only with `white`, which becomes 255.
    - shapes: [H, W, 3] RGB, [H, W, 4] RGBA, [H, W] or [H, W, 1] grey; or channels first, [3, H, W], [4, H, W] or
      [1, H, W]. A shape that may be both, such as [3, 3, 3], is an error.
    - A Pillow image of any mode gives the pixels of its file. Its EXIF orientation is undone if nobody has done so.
      Pillow itself keeps only 8 bits of 16-bit colour, so there `white` changes nothing.

    OpenCV's own arrays are BGR: use `cv2.cvtColor(array, cv2.COLOR_BGR2RGB)`.

    **Depth.** Where the header says what is white, that becomes 255: PNM (maxval), AVIF, and TIFF of 10, 12 or 14 bits
    per sample. PNG and TIFF of 16 bits cannot say that fewer bits are in use, as X-ray machines and industrial cameras
    need it (sBIT and MaxSampleValue do not mean that), and OpenCV writes a maxval of 65535 into every PNM of 16 bits.
    Their samples keep their upper 8 bits (Pillow clips 16-bit grey at 255, which turns most pixels white). If the two
    highest bits are 0 in all of them, an `ImageWarning` says so: a guess never changes the brightness. Give `white`:
    4095 for 12 bits, 65535 if the image is really that dark.

    **Memory.** Reading any file takes at most 60 MB and 12 bytes per pixel of `max_pixels`: 360 MB with the default.
    The header tells what a file would take. A file that would take more is refused before it is decoded, even if it has
    fewer pixels: AVIF, samples of 16 bits, and TIFF in one strip take more per pixel than others. A file may have 30 MB
    and 6 bytes per pixel of `max_pixels`; a larger one is not read.

    Args:
        source: Path of an image file, its encoded bytes, a binary file object, or pixels as above. RGB pixels of uint8
            that are contiguous are returned as they are, not copied.
        max_pixels: Images above this many pixels are refused before anything is decoded. OpenCV itself stops at 2**30.
            No side may have more than 2**20.
        white: The sample that becomes 255 in images of 16 bits, 1 to 65535. Larger samples become 255, too. None:
            65535, with a warning if that leaves the image dark. Images of other depths ignore it.
        strict: Refuse a damaged image that can be read in part, instead of warning.

    Returns:
        uint8 [H, W, 3], RGB, C-contiguous.

    Raises:
        ImageError: The source is missing, unreadable, empty, no regular file, of a format that is not accepted,
            truncated, damaged or too large, or is an array of another type, shape or range.
        OptionError: `max_pixels` below 1, `white` out of range, or `strict` neither True nor False.

    Warns:
        ImageWarning: An image is damaged, and the decoder filled in what was missing (a JPEG without some of its
            scans, or with a hole in one); `strict` makes that an error. Or samples of 16 bits are dark.

    Example:
        >>> read_image("xray.png", white=4095).shape  # doctest: +SKIP
        (2048, 2500, 3)
        >>> read_image(np.ones((3, 20, 30), np.float32))[0, 0]
        array([255, 255, 255], dtype=uint8)
    """
    check_max_pixels(max_pixels)
    check_white(white)
    check_strict(strict)
    encoded = encoded_of(source, max_pixels)
    if encoded is not None:
        return decode(encoded, max_pixels, white, strict=strict)
    if is_pillow(source):
        return _from_pillow(source, max_pixels, white)
    if is_array(source):
        return _from_array(source, max_pixels, white)
    raise ImageError(f"an image cannot be read from {type(source).__name__}: {_instead(source)}")


def _instead(source: object) -> str:
    """What to give instead of an object that is no image."""
    if isinstance(source, list | tuple):
        return (
            "this takes one image; explain, predict and preprocess take a list of them, and an image in numbers is an "
            "array: np.asarray(list)"
        )
    return "give a path, the bytes of a file, a binary file object, an array, a tensor or a Pillow image"


def _from_array(source: Any, max_pixels: int, white: int | None) -> NDArray[np.uint8]:
    shape = getattr(source, "shape", None)
    if isinstance(shape, tuple) and hasattr(source, "dtype"):  # before anything is copied
        check_pixels(*layout(shape, described(source))[:2], described(source), max_pixels)
    array = as_array(source)
    name = described(array)
    check_pixels(*layout(array.shape, name)[:2], name, max_pixels)
    return array_to_rgb(array, name, white)


def _from_pillow(source: Any, max_pixels: int, white: int | None) -> NDArray[np.uint8]:
    def check_size(width: int, height: int, name: str) -> None:
        check_pixels(height, width, name, max_pixels)

    pixels, orientation, name = pillow_pixels(source, check_size)
    if pixels.dtype != np.uint8:
        if white is None:
            warn_if_dark(pixels, name)
        pixels = uint8_to_rgb(sixteen_bit_table(white)[pixels], None)
    return upright(pixels.astype(np.uint8, copy=False), orientation)
