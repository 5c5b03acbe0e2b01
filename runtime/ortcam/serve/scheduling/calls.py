"""`Call`: a request on its way: when it arrived, until when it is wanted, why it was stopped, where its time went."""

import contextlib
import dataclasses
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Final, Literal

from ortcam.request import ExplainRequest

__all__ = ["Abandoned", "Call", "Why"]

# Why a call was stopped. After the first two nobody waits for an answer; after the others the best map so far is it.
Why = Literal["gone", "cancelled", "drain", "time"]

_ABANDONED: Final = ("gone", "cancelled")


class Abandoned(Exception):  # noqa: N818 - nothing went wrong
    """Nobody waits for the answer any more: the client has gone, or a job was cancelled.

    Attributes:
        why: which of both.
    """

    def __init__(self, why: Why) -> None:
        super().__init__(f"the call was abandoned: {why}")
        self.why: Why = why


class Call:
    """A request on its way. Any thread may use it. All times are of `time.monotonic`, in seconds.

    Attributes:
        id: of the request, for logs.
        arrived: when the request did.
        deadline: when the caller wants the answer; None: no hurry.
        ends: when the server's own limit stops it; infinite where there is none.
        admitted: whether it is taken however many calls wait: a job, which has a bound of its own, or a request with
            several images, one of which has had its turn.
        passes: masked forward passes, or passes of the head, that were made so far.
        stages: seconds by stage: "queue", "decode", "run", "encode".
        notes: what is wrong with an image that was read all the same, one sentence each.

    Example:
        >>> call = Call(seconds=60)
        >>> call.stopping(), call.stop("drain"), call.stopping(), call.abandoned
        (False, None, True, False)
    """

    def __init__(self, name: str | None = None, arrived: float | None = None, *, seconds: float = math.inf) -> None:
        """A call that arrives now.

        Args:
            name: its id; None makes one.
            arrived: when it arrived, of `time.monotonic`; None: now.
            seconds: after its arrival the server stops it.
        """
        self.id = name or uuid.uuid4().hex
        self.arrived = time.monotonic() if arrived is None else arrived
        self.deadline: float | None = None
        self.ends = self.arrived + seconds
        self.admitted = False
        self.passes = 0
        self.stages: dict[str, float] = {}
        self.notes: list[str] = []
        self._made = 0
        self._why: Why | None = None
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[Why], None]] = []

    @property
    def why(self) -> Why | None:
        """Why it was stopped; None while it was not."""
        return self._why

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for the answer."""
        return self._why in _ABANDONED

    def expect(self, milliseconds: float | None) -> None:
        """The caller wants the answer so many milliseconds after the arrival; None: no hurry."""
        self.deadline = None if milliseconds is None else self.arrived + milliseconds / 1000

    def seconds_left(self) -> float:
        """Seconds to the caller's deadline, negative once it has passed; infinite where there is none."""
        return math.inf if self.deadline is None else self.deadline - time.monotonic()

    def seconds_to_wait(self) -> float:
        """Seconds that it may wait before it makes no sense to begin: to the deadline or the server's limit."""
        return min(self.seconds_left(), self.ends - time.monotonic())

    def stop(self, why: Why) -> None:
        """Stop it: at the next run of a graph it ends. A call that was told to end early can still be abandoned."""
        with self._lock:
            if self._why is not None and (self._why in _ABANDONED or why not in _ABANDONED):
                return
            self._why = why
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback(why)

    @contextlib.contextmanager
    def on_stop(self, callback: Callable[[Why], None]) -> Iterator[None]:
        """Call a function when this call is stopped within the block, in the thread that stops it; at once if it was.

        It may be called twice: with "drain" or "time", and then with "gone" or "cancelled".
        """
        with self._lock:
            self._callbacks.append(callback)
            why = self._why
        try:
            if why is not None:
                callback(why)
            yield
        finally:
            with self._lock:
                self._callbacks.remove(callback)

    def stopping(self) -> bool:
        """Whether to end with the best map so far: the `stop` of `Explainer.explain_request`."""
        if self._why is None and time.monotonic() >= self.ends:
            self.stop("time")
        return self._why is not None

    def progress(self, made: int, _: int) -> None:
        """Count passes: the `progress` of `Explainer.explain_request`.

        Raises:
            Abandoned: nobody waits for the answer.
        """
        self.passes += made - self._made if made >= self._made else made  # from the next image on it counts anew
        self._made = made
        self.check()

    def check(self) -> None:
        """Go on only if somebody waits for the answer.

        Raises:
            Abandoned: nobody does.
        """
        why = self._why
        if why is not None and why in _ABANDONED:
            raise Abandoned(why)

    def within(self, request: ExplainRequest) -> ExplainRequest:
        """A request with the deadline that is left; methods that mask no image have none, and stay as they are."""
        if self.deadline is None or not request.settings.method.masks_image:
            return request
        milliseconds = max(1000 * self.seconds_left(), 1.0)
        return dataclasses.replace(request, limits=dataclasses.replace(request.limits, deadline=milliseconds))

    @contextlib.contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Add the seconds that the block takes to a stage."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.add(stage, time.monotonic() - begun)

    def add(self, stage: str, seconds: float) -> None:
        """Add seconds to a stage."""
        with self._lock:
            self.stages[stage] = self.stages.get(stage, 0.0) + seconds
