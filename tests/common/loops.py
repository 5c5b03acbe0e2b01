"""Event loops for tests, in threads of their own.

Playwright leaves a loop running in the main thread of a test process, which then takes no other.
"""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

__all__ = ["Loop", "run_async"]

_Result = TypeVar("_Result")


class Loop:
    """One event loop for several coroutines, as `asyncio.Runner`."""

    def __enter__(self) -> Self:
        self._thread = ThreadPoolExecutor(1)
        self._runner = asyncio.Runner()
        return self

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """What the coroutine returns, or raises."""
        return self._thread.submit(self._runner.run, work).result()

    def __exit__(self, *_: object) -> None:
        self._thread.submit(self._runner.close).result()
        self._thread.shutdown()


def run_async(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Like `asyncio.run`, whatever the caller's thread does."""
    with Loop() as loop:
        return loop.run(work)
