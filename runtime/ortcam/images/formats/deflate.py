"""How many bytes come of deflated ones, found out without keeping them."""

import zlib
from collections.abc import Iterable
from typing import Final

__all__ = ["inflated_size"]

_SLICE: Final = 1 << 16  # bytes that are given at a time, since what is left of them is copied at each step
_MADE: Final = 1 << 20  # bytes that are made at a time


def inflated_size(parts: Iterable[memoryview], most: int) -> int:
    """The number of bytes that a zlib stream inflates to; some number above `most` where it is more.

    Args:
        parts: of the stream, which may lie apart; what is behind its end is not looked at.
        most: where to stop.

    Raises:
        zlib.error: it is damaged before it ends, or before there are more.
    """
    inflate = zlib.decompressobj()
    size = 0
    for part in parts:
        for first in range(0, len(part), _SLICE):
            rest: bytes | memoryview = part[first : first + _SLICE]
            while rest:
                size += len(inflate.decompress(rest, _MADE))
                rest = inflate.unconsumed_tail
                if size > most or inflate.eof:
                    return size
    return size
