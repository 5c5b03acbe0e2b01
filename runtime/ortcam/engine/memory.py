"""Memory that is given back to the system once it is no longer used."""

import ctypes
import functools
import sys
from collections.abc import Callable

__all__ = ["give_back"]


def give_back() -> None:
    """Have the C library return the memory that it keeps for later, where it can (glibc); else do nothing.

    Sessions are made and dropped in pieces of many sizes, most of which the C library would keep: of 50 dropped
    explainers 1.7 GB.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@functools.cache
def _trim() -> "Callable[[int], int] | None":
    if not sys.platform.startswith("linux"):
        return None
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another C library
        return None
    return trim
