"""The memory that a lossless WebP takes for its prefix codes, read from the beginning of its VP8L stream (RFC 9649).

An image may be cut into blocks, each decoded by one of up to 65,536 groups of codes, for which libwebp keeps tables.
How many groups there are, the largest number in an image of the blocks tells, which follows images of the transforms.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Stream"]

_MOST_GROUPS: Final = 1 << 16
_MOST_PIXELS: Final = 400_000  # of images of transforms and blocks that are walked through, in a second
_GROUP: Final = 600  # bytes, beside its tables
_TABLES: Final = 4 * 2954  # bytes of a group's tables without a cache of colours, as libwebp has them at most
_LARGEST_CACHE: Final = 11  # bits
_HEADER: Final = 5
_ORDER: Final = (17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
_LITERALS, _LENGTHS, _DISTANCES = 256, 24, 40


class _EndlessError(Exception):
    """The images are too large to be walked through, or do not follow the format."""


@dataclass(frozen=True)
class Stream:
    """A VP8L stream in a file.

    Attributes:
        data: of the file.
        start: of the stream.
        stop: its end.
        width: in pixels.
        height: in pixels.
        headless: whether the stream lacks its signature and size, as that of alpha does.
    """

    data: bytes
    start: int
    stop: int
    width: int
    height: int
    headless: bool = False

    def most_tables(self) -> int:
        """The most bytes that its tables can take, each group of which has 20 bits at least, and 4 x 4 pixels."""
        blocks = -(-self.width // 4) * -(-self.height // 4)
        return _size(min(_MOST_GROUPS, 8 * (self.stop - self.start) // 20, blocks), _LARGEST_CACHE)

    def tables(self) -> int:
        """The bytes that its tables take; the most there can be where that cannot be told."""
        bits = _Bits(self.data, self.start + (0 if self.headless else _HEADER), self.stop)
        try:
            return _size(*_groups(bits, self.width, self.height))
        except (_EndlessError, struct.error, IndexError):
            return self.most_tables()


def _size(groups: int, cache: int) -> int:
    return groups * (_GROUP + _TABLES + (4 << cache if cache else 0))


def _groups(bits: "_Bits", width: int, height: int) -> tuple[int, int]:
    """How many groups of codes an image has, and the bits of its cache of colours."""
    seen = set()
    left = _MOST_PIXELS
    while bits.take(1):
        kind = bits.take(2)
        if kind in seen:
            raise _EndlessError
        seen.add(kind)
        if kind < 2:  # a predictor or a colour transform for each block
            left -= _walk_image(bits, *_in_blocks(width, height, bits.take(3) + 2), left)[1]
        elif kind == 3:
            colours = bits.take(8) + 1
            _walk_image(bits, colours, 1, left)
            packed = 3 if colours <= 2 else 2 if colours <= 4 else 1 if colours <= 16 else 0
            width = -(-width // (1 << packed))
    cache = bits.take(4) if bits.take(1) else 0
    if not bits.take(1):
        return 1, cache
    return _walk_image(bits, *_in_blocks(width, height, bits.take(3) + 2), left)[0] + 1, cache


def _in_blocks(width: int, height: int, bits: int) -> tuple[int, int]:
    return -(-width // (1 << bits)), -(-height // (1 << bits))


def _walk_image(bits: "_Bits", width: int, height: int, most: int) -> tuple[int, int]:
    """The largest value of red and green of an image that is coded with one group, and how many pixels it has.

    Copies of pixels and of the cache repeat what a literal had before, so that nothing has to be decoded.
    """
    count = width * height
    if count > most:
        raise _EndlessError
    cache = bits.take(4) if bits.take(1) else 0
    sizes = (_LITERALS + _LENGTHS + (1 << cache if cache else 0), *(_LITERALS,) * 3, _DISTANCES)
    green, red, blue, alpha, distance = (bits.read_code(size) for size in sizes)
    largest = done = 0
    while done < count:
        symbol = bits.symbol(green)
        if symbol < _LITERALS:
            largest = max(largest, bits.symbol(red) << 8 | symbol)
            bits.symbol(blue)
            bits.symbol(alpha)
            done += 1
        elif symbol < _LITERALS + _LENGTHS:
            done += bits.number(symbol - _LITERALS)
            bits.number(bits.symbol(distance))
        else:
            done += 1
    return largest, count


_Code = tuple[int, Sequence[tuple[int, int]]]  # bits to look at, and for each value of them the symbol and its length


class _Bits:
    """A stream of bits, the lowest of each byte first."""

    def __init__(self, data: bytes, start: int, stop: int) -> None:
        self._data, self._next, self._stop = data, start, stop
        self._number = self._left = 0

    def _fill(self) -> None:
        more = self._data[self._next : min(self._next + 64, self._stop)]
        self._number |= int.from_bytes(more, "little") << self._left
        self._left += 8 * len(more)
        self._next += len(more)

    def take(self, count: int) -> int:
        """A number of so many bits."""
        if self._left < count:
            self._fill()
            if self._left < count:
                raise struct.error
        number = self._number & ((1 << count) - 1)
        self._number >>= count
        self._left -= count
        return number

    def symbol(self, code: _Code) -> int:
        """The next symbol of a code."""
        width, table = code
        if self._left < width:
            self._fill()
        symbol, length = table[self._number & ((1 << width) - 1)]
        if length > self._left:
            raise struct.error
        self._number >>= length
        self._left -= length
        return symbol

    def number(self, symbol: int) -> int:
        """A length or distance, whose prefix is the symbol."""
        if symbol < 4:
            return symbol + 1
        extra = (symbol - 2) >> 1
        return ((2 + (symbol & 1)) << extra) + self.take(extra) + 1

    def read_code(self, size: int) -> _Code:
        """The code of an alphabet of this size."""
        if self.take(1):
            several = self.take(1)
            first = self.take(8 if self.take(1) else 1)
            if not several:
                return 0, [(first, 0)]
            return 1, [(first, 1), (self.take(8), 1)]
        lengths = [0] * len(_ORDER)
        for place in _ORDER[: 4 + self.take(4)]:
            lengths[place] = self.take(3)
        return _table(self._read_lengths(_table(lengths), size))

    def _read_lengths(self, code: _Code, size: int) -> list[int]:
        left = 2 + self.take(2 + 2 * self.take(3)) if self.take(1) else size
        lengths: list[int] = []
        before = 8
        while len(lengths) < size and left:
            left -= 1
            symbol = self.symbol(code)
            if symbol < 16:
                lengths.append(symbol)
                before = symbol or before
            elif symbol == 16:
                lengths += [before] * (3 + self.take(2))
            else:
                lengths += [0] * (3 + self.take(3) if symbol == 17 else 11 + self.take(7))
        if len(lengths) > size:
            raise _EndlessError
        return lengths


def _table(lengths: Sequence[int]) -> _Code:
    """The canonical code of these lengths, one a symbol; 0 is no code.

    Raises:
        _EndlessError: they make no complete code.
    """
    used = [(length, symbol) for symbol, length in enumerate(lengths) if length]
    if len(used) == 1:
        return 0, [(used[0][1], 0)]
    width = max((length for length, _ in used), default=0)
    if not used or sum(1 << width - length for length, _ in used) != 1 << width:
        raise _EndlessError
    table = [(0, 0)] * (1 << width)
    code = before = 0
    for length, symbol in sorted(used):
        code <<= length - before
        before = length
        turned = int(f"{code:0{length}b}"[::-1], 2)
        table[turned :: 1 << length] = [(symbol, length)] * (1 << width - length)
        code += 1
    return width, table
