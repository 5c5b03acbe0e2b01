"""What reading an image may cost: limits of pixels, bytes and memory, and the checks of `read_image`'s options."""

from dataclasses import replace
from typing import Final

import numpy as np

from ortcam.errors import ImageError, OptionError
from ortcam.images.formats.header import Header
from ortcam.support.ranges import MAX_PIXELS, check_flags, shown

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "GREY_DECODED",
    "LONGEST_SIDE",
    "SPARE",
    "WHITE",
    "a_file_of",
    "check_cost",
    "check_encoded",
    "check_max_pixels",
    "check_memory",
    "check_pixels",
    "check_strict",
    "check_white",
    "largest_file",
    "too_large",
]

DEFAULT_MAX_PIXELS: Final = 25_000_000  # a photograph of 24 megapixels passes, and 360 MB suffice for any file
_BYTES_PER_PIXEL: Final = 12  # of max_pixels: the most that reading a file takes, beside what follows
SPARE: Final = 30_000_000  # half of the 60 MB that come on top; the other half is for what no header tells
LONGEST_SIDE: Final = 1 << 20  # pixels, as OpenCV has it; more in a row would take seconds to scale down
_ENCODED_PER_PIXEL: Final = 6  # of max_pixels: no image of 16 bits is longer, but for alpha; the file may be copied

WHITE = 65535  # of samples of 16 bits
GREY_DECODED: Final = {"JPEG", "PNG"}  # where OpenCV gives grey the same samples in one channel as in three


def check_max_pixels(value: object) -> int:
    """A limit of pixels as an int.

    Raises:
        OptionError: it is no whole number from 1, or beyond any image.
    """
    return int(MAX_PIXELS.check(value))


def check_strict(value: object) -> bool:
    """Whether damage is an error.

    Raises:
        OptionError: neither True nor False.
    """
    check_flags(strict=value)
    return bool(value)


def check_white(value: object) -> int | None:
    """The sample of 16 bits that is white, as an int, or None.

    Raises:
        OptionError: it is neither None nor a whole number from 1 to 65535.
    """
    if value is None:
        return None
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or not 1 <= value <= WHITE:
        raise OptionError(
            f"white={shown(value)}: accepted is a whole number from 1 to {WHITE}, such as 4095 for 12 bits"
        )
    return int(value)


def largest_file(max_pixels: int) -> int:
    """How many bytes an encoded image may have with this limit of pixels."""
    return SPARE + _ENCODED_PER_PIXEL * max_pixels


def check_encoded(size: int, name: str, max_pixels: int) -> None:
    """Refuse an encoded image that is too long.

    Raises:
        ImageError: it has more bytes than go with this limit of pixels.
    """
    most = largest_file(max_pixels)
    if size > most:
        raise ImageError(
            f"{name} has {size} bytes or more, and {most} are the most that go with max_pixels={max_pixels}: give a "
            "smaller file, or a larger max_pixels (--max-pixels)"
        )


def check_pixels(height: int, width: int, name: str, max_pixels: int) -> None:
    """Refuse an image of more pixels than allowed, or with a side that is too long.

    Raises:
        ImageError: it has.
    """
    if height * width > max_pixels:
        raise ImageError(too_large(name, width, height, 0, max_pixels, 0))
    _check_sides(width, height, name)


def check_cost(header: Header, encoded: int, name: str, max_pixels: int) -> None:
    """Refuse an image that has, or is decoded as, more pixels than allowed, or takes more memory.

    Raises:
        ImageError: it does; the message says which limit lets it pass.
    """
    pixels, memory = header.width * header.height, _memory(header, encoded)
    if max(pixels, header.decoded_pixels) > max_pixels:
        raise ImageError(too_large(name, header.width, header.height, header.decoded_pixels, max_pixels, memory))
    _check_sides(header.width, header.height, name)
    if memory > _most_memory(max_pixels) and header.measure:
        memory = _memory(replace(header, working=header.measure()), encoded)
    size = f"{header.width} x {header.height} pixels"
    check_memory(memory, f"{name} is {a_file_of(header.kind)} of {size} that", max_pixels)


def check_memory(memory: int, name: str, max_pixels: int) -> None:
    """Refuse an image that takes more memory than goes with this limit of pixels.

    Args:
        memory: bytes that reading it takes, with SPARE for what no header tells.
        name: of the image, as the subject of the message.
        max_pixels: the limit.

    Raises:
        ImageError: it does; the message says which limit lets it pass.
    """
    most = _most_memory(max_pixels)
    if memory > most:
        needed = _needed_limit(memory)
        raise ImageError(
            f"{name} may take {_megabytes(memory)} to decode, more than the {_megabytes(most)} that go with "
            f"max_pixels={max_pixels}: max_pixels={needed} (--max-pixels {needed}) reads it"
        )


def _most_memory(max_pixels: int) -> int:
    return 2 * SPARE + _BYTES_PER_PIXEL * max_pixels


def a_file_of(kind: str) -> str:
    """Name a file of a format: "a PNG file", "an AVIF file"."""
    return f"{'an' if kind == 'AVIF' else 'a'} {kind} file"


def _check_sides(width: int, height: int, name: str) -> None:
    if max(width, height) > LONGEST_SIDE:
        raise ImageError(f"{name} has {width} x {height} pixels; accepted are sides of at most {LONGEST_SIDE} pixels")


def too_large(name: str, width: int, height: int, decoded: int, max_pixels: int, memory: int) -> str:
    """Say that an image has too many pixels, and which limit reads it.

    Args:
        name: of the image.
        width: columns.
        height: rows.
        decoded: pixels that the decoder makes, where they are more.
        max_pixels: the limit.
        memory: bytes that reading it takes; 0 if they are not known.
    """
    pixels = width * height
    larger = f" (and decodes to {decoded})" if decoded > pixels else ""
    needed = max(pixels, decoded, _needed_limit(memory))
    takes = f", which may take {_megabytes(memory)} of memory" if memory else ""
    if max(width, height) > LONGEST_SIDE:
        return (
            f"{name} has {width} x {height} = {pixels} pixels, more than the limit of {max_pixels}, and sides of at "
            f"most {LONGEST_SIDE} are accepted"
        )
    return (
        f"{name} has {width} x {height} = {pixels} pixels{larger}, more than the limit of {max_pixels}: "
        f"max_pixels={needed} (--max-pixels {needed}) reads it{takes}"
    )


def _memory(header: Header, encoded: int) -> int:
    """Bytes that reading an image takes at most, as its header tells, with half of what comes on top of pixels."""
    pixels = max(header.width * header.height, header.decoded_pixels)
    grey = header.grey and (header.kind in GREY_DECODED or header.pixels is not None)
    decoded = pixels * (1 if grey else 3) * (2 if header.deep else 1)
    payload = 0 if header.payload is None else len(header.payload)
    given = payload or encoded
    changed = header.deep or grey or header.levels is not None or header.canvas is not None
    turned = header.orientation in range(2, 9)
    return SPARE + max(
        encoded + payload,
        given + decoded + header.working,
        given + (1 if header.pixels is not None else 2) * decoded,  # OpenCV for Python makes a copy
        decoded + 3 * pixels * changed,
        (6 + 3 * (header.canvas is not None)) * pixels * turned,
    )


def _needed_limit(memory: int) -> int:
    """The smallest `max_pixels` with which an image that takes so many bytes is read."""
    return max(-(-(memory - 2 * SPARE) // _BYTES_PER_PIXEL), 1)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
