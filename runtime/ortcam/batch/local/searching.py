"""`search`: precision and batch size that fit under a limit of memory, found by a process like those that score.

The driver has more in its memory than they.
"""

import dataclasses
import queue
from typing import Any, Final

from ortcam.batch.local.cores import share_machine
from ortcam.batch.local.messages import Broken, Found, Search, Warned
from ortcam.batch.local.process import Ended, ScoringProcess
from ortcam.batch.settings import BatchSettings
from ortcam.errors import OrtcamError

__all__ = ["search"]

_PATIENCE: Final = 10.0  # seconds until a process has ended that was killed


def search(settings: BatchSettings, processes: int | None = None, threads: int | None = None) -> BatchSettings:
    """Have a process find what fits.

    Args:
        settings: of the batch, with a limit. Its batch size is the most; a precision that it has is taken.
        processes: that will score; None: as measured best.
        threads: of each of them; None: as measured best.

    Returns:
        The settings with the batch size and the precision that were found.

    Raises:
        MemoryLimitError: nothing fits.
        OrtcamError: what is wrong with all images, or the process ended.
    """
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threads = share_machine(processes, threads, providers=settings.providers).threads
    process = ScoringProcess(Search(settings, threads), lambda _, message: heard.put(message))
    try:
        while isinstance(message := heard.get(), Warned):
            pass  # the processes that score warn, too
    finally:
        process.kill()
        process.wait(_PATIENCE)
    match message:
        case Found(precision, batch_size):
            return dataclasses.replace(settings, precision=precision, batch_size=batch_size)
        case Broken():
            raise message.error()
        case Ended(how, said):
            raise OrtcamError(f"the process that looks for a batch size has ended ({how}){': ' if said else ''}{said}")
        case _:
            raise TypeError(f"{message!r} is no answer to a search")
