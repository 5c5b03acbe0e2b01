"""From the bytes of an image file to upright uint8 RGB: OpenCV decodes what `formats` has accepted."""

import re
import sys
import warnings
from dataclasses import replace
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ortcam.errors import ImageError, ImageWarning
from ortcam.images.arrays.files import is_array_file, read_array_file
from ortcam.images.arrays.pixels import row_blocks
from ortcam.images.arrays.rgb import array_to_rgb, check_rgb, sixteen_bit_table
from ortcam.images.encoded import Encoded
from ortcam.images.formats.accepted import ACCEPTED, HEAD, read_header
from ortcam.images.formats.decoder_output import listening
from ortcam.images.formats.header import DamagedError, Header
from ortcam.images.limits import GREY_DECODED, SPARE, WHITE, a_file_of, check_cost, check_memory, too_large
from ortcam.support.terminal import one_line

__all__ = ["decode", "decode_deep", "oriented", "upright", "warn_if_dark"]

_DEEP: Final = {"PNG", "PNM"}  # whose samples come as they are in the file
_DARK_BITS = 14  # samples that stay below 2**14 leave the image at a quarter of its brightness, or less
_DAMAGE = re.compile("corrupt jpeg data|premature end of jpeg|found marker|inconsistent progression", re.IGNORECASE)


def decode(encoded: Encoded, max_pixels: int, white: int | None = None, *, strict: bool = False) -> NDArray[np.uint8]:
    """Encoded bytes as `read_image` reads them.

    Args:
        encoded: of a file; its bytes are taken.
        max_pixels: as of `read_image`.
        white: as of `read_image`.
        strict: as of `read_image`.

    Raises:
        ImageError: they are empty, not of a format that is accepted, truncated, damaged or too large.

    Warns:
        ImageWarning: as `read_image`.
    """
    if is_array_file(encoded.data[:HEAD]):
        array, name = read_array_file(encoded.take(), encoded.name, max_pixels, check_rgb)
        return array_to_rgb(array, name, white)
    header, decoded = _decoded(encoded, max_pixels, strict=strict)
    rgb = _to_rgb(header, decoded, encoded.name, white)
    del decoded
    return _placed(rgb, header)


def decode_deep(encoded: Encoded, max_pixels: int, *, alpha: bool = False, strict: bool = False) -> NDArray[Any]:
    """Encoded bytes of a picture at the depth of its file: PNG and PNM may have 16 bits, all others come with 8.

    Args:
        encoded: of a file that holds no array; its bytes are taken.
        max_pixels: as of `read_image`.
        alpha: keep the alpha of a PNG file as its last band.
        strict: as of `read_image`.

    Returns:
        uint8 or uint16 [H, W, B], upright: grey, RGB, or with alpha one band more.

    Raises:
        ImageError: as `decode`.

    Warns:
        ImageWarning: an image is damaged.
    """
    header, decoded = _decoded(encoded, max_pixels, alpha=alpha, strict=strict)
    if header.kind not in _DEEP:
        rgb = _to_rgb(header, decoded, encoded.name, WHITE)
        del decoded
        rgb = _placed(rgb, header)
        return rgb[..., :1] if header.grey else rgb
    samples = decoded[..., None] if decoded.ndim == 2 else decoded[..., [2, 1, 0, 3][: decoded.shape[2]]]
    if header.grey and samples.shape[2] == 4:
        samples = samples[..., [0, 3]]
    elif header.grey:
        samples = samples[..., :1]
    return oriented(samples.astype(samples.dtype.newbyteorder("="), copy=False), header.orientation)


def _decoded(encoded: Encoded, max_pixels: int, *, alpha: bool = False, strict: bool) -> tuple[Header, NDArray[Any]]:
    """The header of a picture, without its bytes, and BGR [H, W, 3], grey [H, W] or BGRA, not turned."""
    data, name = encoded.take(), encoded.name
    if not data:
        raise ImageError(f"{name} is empty: 0 bytes; {ACCEPTED}")
    header = read_header(data, name)
    check_cost(header, len(data), name, max_pixels)
    alpha = alpha and header.alpha
    if alpha:
        decoded_bytes = 4 * header.width * header.height * (2 if header.deep else 1)
        check_memory(SPARE + len(data) + 2 * decoded_bytes, f"{name} with its alpha", max_pixels)
    try:
        flaw = header.flaw or (header.check() if header.check else "")
        if flaw:
            _tell_of_damage(flaw, name, strict=strict)
        if header.payload is not None:
            data = header.payload
        header = replace(header, payload=None, check=None, measure=None, flaw=flaw)
        decoded = header.pixels() if header.pixels else _decode(data, header, name, alpha=alpha, strict=strict)
    except DamagedError as error:
        raise ImageError(f"{name} is damaged: {error}") from None
    if decoded.shape[0] * decoded.shape[1] > max_pixels:
        raise ImageError(too_large(name, decoded.shape[1], decoded.shape[0], 0, max_pixels, 0))
    if decoded.dtype not in {np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(">u2")}:
        raise ImageError(f"{name} has samples of {decoded.dtype}; accepted: 8 or 16 bits")
    return replace(header, pixels=None), decoded


def _to_rgb(header: Header, decoded: NDArray[Any], name: str, white: int | None) -> NDArray[np.uint8]:
    """What OpenCV has decoded as uint8 RGB, not turned."""
    if decoded.dtype != np.uint8 and header.white_unknown and white is None:
        warn_if_dark(decoded, name, inverted=header.inverted)
    tables = header.levels
    known = white is not None and header.white_unknown
    if decoded.dtype != np.uint8 and (known or tables is None):
        tables = (sixteen_bit_table(white if known else None),)
        tables = tuple(255 - table for table in tables) if header.inverted else tables
    return _as_rgb(decoded) if tables is None else _look_up(decoded, tables)


def _placed(rgb: NDArray[np.uint8], header: Header) -> NDArray[np.uint8]:
    """RGB on the canvas that it is a part of, upright."""
    if header.canvas is not None:
        height, width, top, left = header.canvas
        canvas = np.zeros((height, width, 3), np.uint8)
        canvas[top : top + rgb.shape[0], left : left + rgb.shape[1]] = rgb
        rgb = canvas
    return upright(rgb, header.orientation)


def _decode(payload: bytes, header: Header, name: str, *, alpha: bool, strict: bool) -> NDArray[Any]:
    """What OpenCV decodes: BGR [H, W, 3], or grey [H, W], at the depth of the file; not turned."""
    grey = header.grey and header.kind in GREY_DECODED
    flags = (cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR) | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    flags = cv2.IMREAD_UNCHANGED if alpha else flags
    decoded: NDArray[Any] | None
    try:
        decoded, said = listening(lambda: cv2.imdecode(np.frombuffer(payload, np.uint8), flags))
    except (cv2.error, MemoryError) as error:
        raise ImageError(f"{name} cannot be decoded by OpenCV {cv2.__version__}: {one_line(error)}") from None
    if decoded is None:
        if header.kind in {"AVIF", "GIF"} and not _is_built_in(header.kind):
            missing = f"OpenCV {cv2.__version__}, which is installed, was built without it"
            raise ImageError(f"{name} is of {header.kind}, but {missing}: install opencv-python-headless 4.12 or newer")
        reason = f"damaged, or of a variety that OpenCV {cv2.__version__} does not read"
        raise ImageError(f"{name} is {a_file_of(header.kind)} that cannot be decoded: {reason}; {ACCEPTED}")
    if _DAMAGE.search(said) and not header.flaw:  # which has been told
        _tell_of_damage("; ".join(dict.fromkeys(said.splitlines())), name, strict=strict)
    return decoded


def _tell_of_damage(what: str, name: str, *, strict: bool) -> None:
    """Warn of damage that the decoder fills in.

    Raises:
        ImageError: where `strict`.
    """
    if strict:
        raise ImageError(f"{name} is damaged ({what}), and strict refuses it")
    _warn(f"{name} is damaged, and parts of it may be wrong ({what})")


def _is_built_in(kind: str) -> bool:
    """Whether OpenCV decodes a format that not all of its builds do."""
    return re.search(rf"^\s*{kind}:\s*(?!NO\b)\S", cv2.getBuildInformation(), re.MULTILINE) is not None


def warn_if_dark(samples: NDArray[Any], name: str, *, inverted: bool = False) -> None:
    """Warn of samples of 16 bits that seem to be of fewer."""
    top = int(samples.max())
    bits = next((bits for bits in (8, 10, 12, _DARK_BITS) if top < 1 << bits), None)
    if bits is None or not top:
        return
    used, wrong = (1 << bits) - 1, "bright" if inverted else "dark"
    _warn(
        f"{name} has samples of 16 bits, none above {top}: if only {bits} bits are in use, the image is too {wrong}, "
        f"and white={used} (--white {used}) corrects it; white={WHITE} says that all 16 are in use"
    )


def _warn(message: str) -> None:
    """Warn whoever called into this package."""
    level = 1
    while sys._getframe(level).f_globals.get("__package__") == __package__ and sys._getframe(level).f_back:
        level += 1
    warnings.warn(message, ImageWarning, level + 1)


def _as_rgb(decoded: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey or BGR as RGB of its own, block by block in place where that can be."""
    if decoded.ndim == 2:
        return cv2.cvtColor(decoded, cv2.COLOR_GRAY2RGB).astype(np.uint8, copy=False)
    if not decoded.flags.writeable or not decoded.flags.c_contiguous:
        return np.array(decoded[..., ::-1], order="C")
    blocks = row_blocks(decoded)
    if len(blocks) == 1:
        return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    for rows in blocks:
        decoded[rows] = cv2.cvtColor(decoded[rows], cv2.COLOR_BGR2RGB)
    return decoded


def _look_up(decoded: NDArray[Any], tables: tuple[NDArray[np.uint8], ...]) -> NDArray[np.uint8]:
    """Grey or BGR samples through one table, or one each of R, G and B, to uint8 RGB, block by block."""
    rgb = np.empty((*decoded.shape[:2], 3), np.uint8)
    for rows in row_blocks(decoded):
        if decoded.ndim == 2:
            rgb[rows] = tables[0][decoded[rows]][..., None]
            continue
        for channel in range(3):
            rgb[rows, :, channel] = tables[channel % len(tables)][decoded[rows, :, 2 - channel]]
    return rgb


# What `cv2.rotate` and `cv2.flip` do, in this order.
_ROTATIONS: Final = {
    3: cv2.ROTATE_180,
    5: cv2.ROTATE_90_CLOCKWISE,
    6: cv2.ROTATE_90_CLOCKWISE,
    7: cv2.ROTATE_90_COUNTERCLOCKWISE,
    8: cv2.ROTATE_90_COUNTERCLOCKWISE,
}
_MIRRORED: Final = {2: 1, 4: 0, 5: 1, 7: 1}  # left and right swapped, or top and bottom


def upright(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo an EXIF orientation of 1 to 8; anything else is no orientation."""
    if orientation in _ROTATIONS:
        image = cv2.rotate(image, _ROTATIONS[orientation]).astype(np.uint8, copy=False)
    if orientation in _MIRRORED:
        image = cv2.flip(image, _MIRRORED[orientation]).astype(np.uint8, copy=False)
    return np.ascontiguousarray(image)


def oriented(samples: NDArray[Any], orientation: int) -> NDArray[Any]:
    """A view of samples [H, W, B] of any type in which an EXIF orientation of 1 to 8 is undone."""
    if orientation in {5, 6, 7, 8}:
        samples = samples.transpose(1, 0, 2)
    if orientation in {3, 4, 7, 8}:
        samples = samples[::-1]
    return samples[:, ::-1] if orientation in {2, 3, 6, 7} else samples
