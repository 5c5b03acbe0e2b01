"""Signals that end work in an orderly way: what is finished is written before they take their course."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

__all__ = ["orderly"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def orderly(stop: threading.Event) -> Iterator[None]:
    """Set an event where SIGINT or SIGTERM arrives, and let the signal take its course at the end of the block.

    Only signals that Python handles are held back: one that ends the process at once, without any Python, does so, and
    loses no more than `kill -9`. A second signal takes its course at once.

    Raises:
        BaseException: what the handler of the signal raises, say KeyboardInterrupt.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what a signal does
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        if held:
            before[number](number, frame)
        held.append(number)
        stop.set()

    ours = [number for number in _SIGNALS if callable(before[number])]
    for number in ours:
        signal.signal(number, hold)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])
    if held:
        before[held[0]](held[0], None)
