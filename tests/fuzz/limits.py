"""What one input may cost, and what is said of one that costs more."""

import contextlib
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["BreachError", "budget"]

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_STATM: Final = Path("/proc/self/statm")


class BreachError(Exception):
    """An input cost more memory or time than it may, or something untrue came of it."""


@contextlib.contextmanager
def budget(*, seconds: float, memory: int) -> Iterator[None]:
    """Hold what is done inside to some CPU time of this process and some bytes of memory on top of what it has.

    The operating system keeps the highest peak of the process alone. A peak below an earlier one goes unnoticed; that
    earlier one was within the budget.

    Raises:
        BreachError: it took more.
    """
    before, peak_before, start = _resident(), _peak(), time.process_time()
    yield
    spent, peak = time.process_time() - start, _peak()
    if spent > seconds:
        raise BreachError(f"{spent:.1f} s of CPU instead of at most {seconds:.1f}")
    if peak > peak_before and peak - before > memory:
        raise BreachError(f"{(peak - before) / 1e6:.0f} MB of memory instead of at most {memory / 1e6:.0f}")


def _resident() -> int:
    """Bytes of memory in use; 0 where the system does not say, so that the peak is held to the budget alone."""
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE
    except OSError:
        return 0


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
