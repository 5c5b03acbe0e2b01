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
from ortcam.images.arrays import row_blocks
from ortcam.images.encoded import Encoded
from ortcam.images.formats.accepted import ACCEPTED, read_header
from ortcam.images.formats.decoder_output import listening
from ortcam.images.formats.header import DamagedError, Header, levels
from ortcam.images.limits import GREY_DECODED, WHITE, a_file_of, check_cost, too_large
from ortcam.support.terminal import one_line

__all__ = ["decode", "sixteen_bit_table", "upright", "warn_if_dark"]

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
    data, name = encoded.take(), encoded.name
    if not data:
        raise ImageError(f"{name} is empty: 0 bytes; {ACCEPTED}")
    header = read_header(data, name)
    check_cost(header, len(data), name, max_pixels)
    try:
        flaw = header.flaw or (header.check() if header.check else "")
        if flaw:
            _tell_of_damage(flaw, name, strict=strict)
        if header.payload is not None:
            data = header.payload
        header = replace(header, payload=None, check=None, measure=None, flaw=flaw)
        decoded = header.pixels() if header.pixels else _decode(data, header, name, strict=strict)
    except DamagedError as error:
        raise ImageError(f"{name} is damaged: {error}") from None
    del data
    if decoded.shape[0] * decoded.shape[1] > max_pixels:
        raise ImageError(too_large(name, decoded.shape[1], decoded.shape[0], 0, max_pixels, 0))
    if decoded.dtype not in {np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(">u2")}:
        raise ImageError(f"{name} has samples of {decoded.dtype}; accepted: 8 or 16 bits")
    if decoded.dtype != np.uint8 and header.white_unknown and white is None:
        warn_if_dark(decoded, name, inverted=header.inverted)
    tables = header.levels
    known = white is not None and header.white_unknown
    if decoded.dtype != np.uint8 and (known or tables is None):
        tables = (sixteen_bit_table(white if known else None),)
        tables = tuple(255 - table for table in tables) if header.inverted else tables
    rgb = _as_rgb(decoded) if tables is None else _look_up(decoded, tables)
    del decoded
    if header.canvas is not None:
        height, width, top, left = header.canvas
        canvas = np.zeros((height, width, 3), np.uint8)
        canvas[top : top + rgb.shape[0], left : left + rgb.shape[1]] = rgb
        rgb = canvas
    return upright(rgb, header.orientation)


def sixteen_bit_table(white: int | None) -> NDArray[np.uint8]:
    """What samples of 16 bits become: their upper 8 bits, or 255 from `white` on; uint8 [65536]."""
    if white is None:
        # OpenCV's own reduction rounds in some formats and shifts in others.
        return (np.arange(1 << 16) >> 8).astype(np.uint8)
    return levels(white, 1 << 16)


def _decode(payload: bytes, header: Header, name: str, *, strict: bool) -> NDArray[Any]:
    """What OpenCV decodes: BGR [H, W, 3], or grey [H, W], at the depth of the file; not turned."""
    grey = header.grey and header.kind in GREY_DECODED
    flags = (cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR) | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
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
