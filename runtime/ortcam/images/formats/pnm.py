"""PBM, PGM and PPM (P1 to P6), read with numpy: their header says which sample is white, which OpenCV overlooks."""

import functools
import re
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.images.formats.header import DamagedError, Header, RefusedError, levels

__all__ = ["walk_pnm"]

_SPACE = rb"(?:\s|#[^\r\n]*[\r\n])++"
_NUMBER = _SPACE + rb"(\d{1,9})"
# The one whitespace character before the samples belongs to the header; a comment may not stand there.
_BITMAP = re.compile(rb"P[14]" + _NUMBER + _NUMBER + rb"\s")
_MAP = re.compile(rb"P[2356]" + _NUMBER + _NUMBER + _NUMBER + rb"\s")
_LARGEST = 65535
_MOST_PLAIN: Final = 32_000_000  # bytes of digits, which take about a second
_MOST_COMMENTS: Final = 10_000  # among the samples
_BLOCK: Final = 1 << 18
_GAP = re.compile(rb"[ \t\n\v\f\r]")
_LINE = re.compile(rb"[\r\n]")
_COMMENT = re.compile(rb"#[^\r\n]*")


def walk_pnm(data: bytes) -> Header:
    """The header of a portable bitmap, graymap or pixmap, plain or raw.

    Raises:
        DamagedError: no size, no sample that is white, or fewer samples than pixels.
        RefusedError: a plain one that is so long, or has so many comments, that reading it takes seconds.
    """
    kind = data[1:2]
    match = (_BITMAP if kind in b"14" else _MAP).match(data)
    if match is None:
        raise DamagedError("its header lacks width, height or the sample that is white")
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
    if kind in b"123" and len(data) - match.end() > _MOST_PLAIN:
        raise RefusedError(f"a plain PNM of {len(data)} bytes, which takes seconds to read", f"{_MOST_PLAIN} or fewer")
    if kind in b"123" and data.count(b"#", match.end()) > _MOST_COMMENTS:
        raise RefusedError(f"a plain PNM of more than {_MOST_COMMENTS} comments")
    read = functools.partial(_pixels, data, match.end(), (height, width, channels), white)
    table = None if white == 255 else (levels(white, 256 if white < 256 else 1 << 16),)  # above white is white
    return Header(
        kind="PNM",
        width=width,
        height=height,
        deep=white > 255,
        grey=channels == 1,
        levels=table,
        # Programs that know nothing of 10 or 12 bits write 65535 for white, whatever their samples are.
        white_unknown=white == _LARGEST,
        pixels=read,
    )


def _pixels(data: bytes, start: int, shape: tuple[int, int, int], white: int) -> NDArray[Any]:
    """The samples of a file whose header has been read: uint8 or big-endian uint16, [height, width] or [..., 3] BGR."""
    kind = data[1:2]
    height, width, channels = shape
    count = height * width * channels
    samples: NDArray[Any]
    if kind == b"1":
        samples = 1 - _digits(data, start, count)
    elif kind == b"4":
        rows = np.frombuffer(data, np.uint8, height * -(-width // 8), start).reshape(height, -1)
        samples = 1 - np.unpackbits(rows, axis=1, count=width)
    elif kind in b"23":
        samples = _numbers(data, start, count, np.uint8 if white < 256 else np.uint16)
    else:
        samples = np.frombuffer(data, np.uint8 if white < 256 else ">u2", count, start)
    return samples.reshape(height, width) if channels == 1 else samples.reshape(shape)[..., ::-1]


def _digits(data: bytes, start: int, count: int) -> NDArray[np.uint8]:
    """The 0s and 1s of a plain bitmap, which need no space between them: uint8 [count]."""
    found = np.empty(count, np.uint8)
    done = 0
    for text in _blocks(data, start):
        part = np.frombuffer(text.translate(None, b" \t\n\v\f\r"), np.uint8)[: count - done] - ord("0")
        if (part > 1).any():
            raise DamagedError(f"of {count} digits 0 or 1 it has {done + int(np.argmax(part > 1))}")
        found[done : done + len(part)] = part
        done += len(part)
        if done == count:
            return found
    raise DamagedError(f"of {count} digits 0 or 1 it has {done}")


def _numbers(data: bytes, start: int, count: int, kind: type[np.uint8] | type[np.uint16]) -> NDArray[Any]:
    """The decimal numbers of a plain graymap or pixmap: uint8 or uint16 [count]; larger ones are its largest."""
    found = np.empty(count, kind)
    done = 0
    for text in _blocks(data, start):
        if text.translate(None, b"0123456789 \t\n\v\f\r") or re.search(rb"\d{7}", text):
            raise DamagedError("its samples are not all decimal numbers")
        if not text.strip():
            continue
        # Not with a count: where there are fewer, numpy would give what happened to be in memory.
        part = np.fromstring(text.decode("ascii"), np.int32, sep=" ")[: count - done]
        found[done : done + len(part)] = np.minimum(part, np.iinfo(kind).max)
        done += len(part)
        if done == count:
            return found
    raise DamagedError(f"of {count} samples it has {done}")


def _blocks(data: bytes, start: int) -> Iterator[bytes]:
    """The text from there on in blocks that end with whitespace, without its comments."""
    while start < len(data):
        end = _ended(_GAP, data, start + _BLOCK)
        comment = data.rfind(b"#", start, end)
        if comment >= 0 and not _LINE.search(data, comment, end):
            end = _ended(_LINE, data, end)
        text = data[start:end]
        yield _COMMENT.sub(b"", text) if comment >= 0 else text
        start = end


def _ended(pattern: re.Pattern[bytes], data: bytes, position: int) -> int:
    match = pattern.search(data, position)
    return match.end() if match else len(data)
