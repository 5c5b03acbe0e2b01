"""PBM, PGM and PPM (P1 to P6), read with numpy: their header says which sample is white, which OpenCV overlooks."""

import functools
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ortcam.image_header import DamagedError, Header, levels

__all__ = ["walk_pnm"]

_SPACE = rb"(?:\s|#[^\r\n]*[\r\n])++"
_NUMBER = _SPACE + rb"(\d{1,9})"
# The one whitespace character before the samples belongs to the header; a comment may not stand there.
_BITMAP = re.compile(rb"P[14]" + _NUMBER + _NUMBER + rb"\s")
_MAP = re.compile(rb"P[2356]" + _NUMBER + _NUMBER + _NUMBER + rb"\s")
_LARGEST = 65535


def walk_pnm(data: bytes) -> Header:
    """The header of a portable bitmap, graymap or pixmap, plain or raw.

    Raises:
        DamagedError: no size, no sample that is white, or fewer samples than pixels.
    """
    kind = data[1:2]
    match = (_BITMAP if kind in b"14" else _MAP).match(data)
    if match is None:
        raise DamagedError("its header does not give width, height and the sample that is white")
    width, height, *rest = (int(number) for number in match.groups())
    white = rest[0] if rest else 1
    channels = 3 if kind in b"36" else 1
    if not 1 <= white <= _LARGEST or not width or not height:
        raise DamagedError(f"its header says {width} x {height} pixels and {white} for white (1 to {_LARGEST})")
    if kind in b"123":
        # At least a digit a sample, and a space where samples are numbers.
        least = width * height * channels * (1 if kind == b"1" else 2) - 1
    else:
        least = height * (-(-width // 8) if kind == b"4" else width * channels * (1 if white < 256 else 2))
    if len(data) - match.end() < least:
        raise DamagedError(f"{len(data) - match.end()} bytes follow the header of {width} x {height} pixels")
    read = functools.partial(_pixels, data, match.end(), (height, width, channels), white)
    table = None if white == 255 else (levels(white, 256 if white < 256 else 1 << 16),)  # above white is white
    # Programs that know nothing of 10 or 12 bits write 65535 for white, whatever their samples are.
    unknown = white == _LARGEST
    return Header(kind="PNM", width=width, height=height, levels=table, white_unknown=unknown, pixels=read)


def _pixels(data: bytes, start: int, shape: tuple[int, int, int], white: int) -> NDArray[Any]:
    """The samples of a file whose header has been read, as OpenCV has them: uint8 or uint16 [height, width, 3], BGR."""
    kind = data[1:2]
    count = shape[0] * shape[1] * shape[2]
    samples: NDArray[np.uint8] | NDArray[np.uint16]
    if kind == b"1":
        samples = 1 - _digits(data, start, count)
    elif kind == b"4":
        rows = np.frombuffer(data, np.uint8, shape[0] * -(-shape[1] // 8), start).reshape(shape[0], -1)
        samples = 1 - np.unpackbits(rows, axis=1, count=shape[1])
    elif kind in b"23":
        samples = _numbers(data, start, count)
        if white < 256:
            samples = np.minimum(samples, 255).astype(np.uint8)
    elif white < 256:
        samples = np.frombuffer(data, np.uint8, count, start)
    else:
        samples = np.frombuffer(data, ">u2", count, start).astype(np.uint16)
    samples = samples.reshape(shape)
    return np.repeat(samples, 3, axis=2) if shape[2] == 1 else samples[..., ::-1]


def _digits(data: bytes, start: int, count: int) -> NDArray[np.uint8]:
    """The 0s and 1s of a plain bitmap, which need no space between them: uint8 [count]."""
    found = np.frombuffer(_without_comments(data[start:]).translate(None, b" \t\n\v\f\r"), np.uint8)[:count] - ord("0")
    if len(found) < count or (found > 1).any():
        raise DamagedError(f"of {count} digits 0 or 1 it has {int((found <= 1).sum())}")
    return found


def _numbers(data: bytes, start: int, count: int) -> NDArray[np.uint16]:
    """The decimal numbers of a plain graymap or pixmap: uint16 [count]; larger ones are 65535."""
    text = _without_comments(data[start:]).strip()
    if text.translate(None, b"0123456789 \t\n\v\f\r") or re.search(rb"\d{7}", text):
        raise DamagedError("its samples are not all decimal numbers")
    # Not with a count: where there are fewer, numpy would give what happened to be in memory.
    numbers = np.fromstring(text.decode("ascii"), np.int32, sep=" ")[:count]
    if len(numbers) < count:
        raise DamagedError(f"of {count} samples it has {len(numbers)}")
    return np.minimum(numbers, _LARGEST).astype(np.uint16)


def _without_comments(text: bytes) -> bytes:
    return re.sub(rb"#[^\r\n]*", b"", text) if b"#" in text else text
