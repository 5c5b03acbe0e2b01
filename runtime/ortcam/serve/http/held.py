"""`Held`: the memory that requests hold while they wait, and its bound."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Final

from ortcam.serve.http.refusals import Refusal
from ortcam.serve.scheduling.calls import Call

__all__ = ["Held"]

_RETRY_AFTER: Final = 2.0


class Held:
    """Counts the bytes of bodies, of decoded images and of answers that are being made. Any thread may use it.

    Attributes:
        most: bytes that all requests together may hold.
        total: bytes that they hold.
    """

    def __init__(self, most: int, refused: Callable[[str], None] = lambda _: None) -> None:
        """Hold nothing yet.

        Args:
            most: bytes.
            refused: told "queue" when a request is refused.
        """
        self.most = most
        self.total = 0
        self._refused = refused
        self._by_call: dict[int, int] = {}
        self._lock = threading.Lock()

    def take(self, call: Call, count: int) -> None:
        """Count more bytes of a call.

        Args:
            call: that holds them until `release`.
            count: of bytes.

        Raises:
            Refusal: 429, requests hold as much as they may. Never a call that holds everything alone, or that has been
                worked on: its work would be lost.
        """
        with self._lock:
            own = self._by_call.get(id(call), 0)
            if self.total + count > self.most and self.total > own and "run" not in call.stages:
                self._refused("queue")
                raise Refusal(
                    429, "the requests that wait take all the memory that they may: try again", retry_after=_RETRY_AFTER
                )
            self.total += count
            self._by_call[id(call)] = own + count

    @contextlib.contextmanager
    def during(self, call: Call, count: int) -> Iterator[None]:
        """Count more bytes of a call within the block.

        Args:
            call: that holds them.
            count: of bytes.

        Raises:
            Refusal: as `take`.
        """
        self.take(call, count)
        try:
            yield
        finally:
            with self._lock:
                if id(call) in self._by_call:
                    self.total -= count
                    self._by_call[id(call)] -= count
                    if not self._by_call[id(call)]:  # also of a call that goes on after its request has ended
                        del self._by_call[id(call)]

    def release(self, call: Call) -> None:
        """Forget what a call holds. More than once does no harm."""
        with self._lock:
            self.total -= self._by_call.pop(id(call), 0)
