"""Memory: how much there is, and given back to the system once it is no longer used."""

import ctypes
import functools
import sys
from collections.abc import Callable
from pathlib import Path

from ortcam.engine.processors import control_groups

__all__ = ["available_memory", "give_back"]


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process and those it starts may take; None where the system does not say (it is not Linux).

    That is what the machine has left, and no more than the limits of the control groups.

    Args:
        root: of the file system, for tests.
    """
    try:
        lines = (root / "proc/meminfo").read_text("ascii").splitlines()
        left = [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        return None
    for folder in control_groups("memory", root):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            try:
                left.append(int((folder / name).read_text("ascii")))
            except (OSError, ValueError):  # "max", or nothing there
                continue
    return min(left, default=None)


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
