"""Cores: how many threads each explanation gets, and which threads give way to others."""

import contextlib
import dataclasses
import os
import sys
import threading
from typing import Final

from ortcam.engine.processors import usable_cores

__all__ = ["Shares", "give_way", "share_cores"]

# Steps of "niceness": at 5 a thread gets a quarter of a core that another one wants, too. At 10 predictions are hardly
# quicker, while explanations take twice as long beside other processes: the share of a whole group of processes falls
# with the priority of its threads.
_GIVES_WAY: Final = 5
_NICEST: Final = 19


@dataclasses.dataclass(frozen=True)
class Shares:
    """How the cores are shared.

    Attributes:
        cores: that this process may use.
        workers: explanations with masks that run at the same time.
        threads: of each run of a graph; `workers` times `threads` is at most `cores`.
    """

    cores: int
    workers: int
    threads: int


def share_cores(workers: int, threads: int | None = None, *, cores: int | None = None) -> Shares:
    """Share the cores among workers; with fewer cores than were asked for, workers come first.

    Args:
        workers: that are asked for.
        threads: of each; None: as many as there are cores for.
        cores: None: those that this process may use, by its affinity and the quota of its control group.

    Example:
        >>> share_cores(3, cores=8), share_cores(4, 2, cores=2)
        (Shares(cores=8, workers=3, threads=2), Shares(cores=2, workers=2, threads=1))
    """
    cores = cores or usable_cores() or os.cpu_count() or 1
    workers = min(workers, cores)
    most = cores // workers
    return Shares(cores, workers, most if threads is None else min(threads, most))


def give_way() -> None:
    """Lower the priority of this thread, and of threads that it starts from now on, such as those of its sessions.

    Linux alone has a priority per thread. Elsewhere nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    thread = threading.get_native_id()
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        nice = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(nice + _GIVES_WAY, _NICEST))
