"""How fast this machine is right now, so that a limit of CPU time means the same work on every machine."""

import time
from typing import Final

__all__ = ["usual_seconds"]

_LOOPS: Final = 200_000
_USUAL: Final = 0.012  # seconds that they take on an idle server of 2024


def usual_seconds(seconds: float) -> float:
    """Seconds of CPU that were measured just now, as those of a usual machine. A faster one counts as usual."""
    return seconds / max(1.0, _pace() / _USUAL)


def _pace() -> float:
    start = time.thread_time()
    total = 0
    for number in range(_LOOPS):
        total += number
    return time.thread_time() - start
