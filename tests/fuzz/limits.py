"""What one input may cost, and what is said of one that costs more."""

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["BreachError", "budget"]

_STATUS: Final = Path("/proc/self/status")
_LINE: Final = re.compile(r"^Vm(RSS|HWM):\s*(\d+) kB$", re.MULTILINE)


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
    (before, peak_before), start = _memory(), time.process_time()
    yield
    spent, (_, peak) = time.process_time() - start, _memory()
    if spent > seconds:
        raise BreachError(f"{spent:.1f} s of CPU instead of at most {seconds:.1f}")
    if peak > peak_before and peak - before > memory:
        raise BreachError(f"{(peak - before) / 1e6:.0f} MB of memory instead of at most {memory / 1e6:.0f}")


def _memory() -> tuple[int, int]:
    """Bytes of memory in use and the most there have been; 0 where the system does not say so.

    Not `getrusage`, whose peak a process takes over from the one that started it.
    """
    try:
        found = dict(_LINE.findall(_STATUS.read_text()))
    except OSError:
        return 0, 0
    return int(found["RSS"]) * 1024, int(found["HWM"]) * 1024
