"""`Lane`: threads that take calls from one queue, beside the event loop."""

import asyncio
import contextlib
import dataclasses
import functools
import math
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, Generic, Protocol, TypeVar

from ortcam.serve.http.refusals import Refusal
from ortcam.serve.scheduling.calls import Abandoned, Call, Why
from ortcam.serve.scheduling.cores import give_way
from ortcam.serve.scheduling.waiting import Waiting

__all__ = ["Lane", "LaneMetrics"]

_Result = TypeVar("_Result")

_SOONEST: Final = 1.0  # seconds before a client may try again
_TIME_WAS_UP: Final = "the request's time was up before its turn"


class LaneMetrics(Protocol):
    """What is told of the calls of a lane; `ortcam.serve.monitoring.Metrics` is one."""

    def queued(self, lane: str, waiting: int, running: int) -> None:
        """So many calls wait, and so many run."""

    def refused(self, reason: str) -> None:
        """A call was refused: "queue", "deadline" or "drain"."""

    def stopped(self, reason: str) -> None:
        """A call was stopped: see `Why`."""


@dataclasses.dataclass(eq=False)
class _Task(Generic[_Result]):
    """A call in a lane, and who waits for its result."""

    model: str
    function: Callable[[], _Result]
    call: Call
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[_Result]"
    entered: float = dataclasses.field(default_factory=time.monotonic)
    begun: float = math.inf

    def settle(self, result: Any, error: BaseException | None) -> None:
        """Hand over the result, or what was raised, from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self.loop.call_soon_threadsafe(_settle, self.future, result, error)


def _settle(future: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    if future.done():  # whoever waited was cancelled
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):  # which no future takes
        future.set_exception(RuntimeError(repr(error)))
    else:
        future.set_exception(error)


class Lane:
    """One queue, and threads that take calls from it."""

    def __init__(
        self,
        name: str,
        *,
        threads: int,
        places: int,
        models: Iterable[str] = (),
        gives_way: bool = False,
        metrics: LaneMetrics | None = None,
    ) -> None:
        """Start nothing yet.

        Args:
            name: for metrics.
            threads: calls that run at once.
            places: calls that may wait.
            models: names of the bundles.
            gives_way: whether the threads have a lower priority.
            metrics: is told.
        """
        self.name = name
        self._count = threads
        self._gives_way = gives_way
        self._metrics = metrics
        self._waiting: Waiting[_Task[Any]] = Waiting(places, models)
        self._running: set[_Task[Any]] = set()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._draining = math.inf  # calls that arrive later are refused
        self._closed = False

    def start(self) -> None:
        """Start the threads."""
        self._threads = [
            threading.Thread(target=self._work, name=f"ortcam-{self.name}-{number}", daemon=True)
            for number in range(self._count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Calls that wait."""
        with self._changed:
            return len(self._waiting)

    @property
    def running(self) -> int:
        """Calls that run."""
        return len(self._running)

    async def run(self, model: str, function: Callable[[], _Result], call: Call) -> _Result:
        """Have a thread call a function when it is its turn.

        If the task that awaits this is cancelled, the call is abandoned.

        Args:
            model: name of the bundle.
            function: runs in the thread; it asks `call.stopping` and `call.progress`.
            call: of the request.

        Returns:
            What the function returned.

        Raises:
            Refusal: 429 where the queue is full or the time is up before its turn; 503 while the server is stopping.
            Abandoned: the client has gone, or the job was cancelled.
            Exception: what the function raised.
        """
        loop = asyncio.get_running_loop()
        task = _Task(model, function, call, loop, loop.create_future())
        self._enter(task)
        left = math.inf if call.admitted else call.seconds_to_wait()
        timer = None if math.isinf(left) else loop.call_later(max(left, 0.0), self._expire, task)
        try:
            with call.on_stop(functools.partial(self._stopped, task)):
                result: _Result = await task.future
                return result
        except asyncio.CancelledError:
            call.stop("gone")
            self._stopped(task, "gone")
            raise
        except Abandoned:
            if self._closed:
                raise Refusal(503, "the server is stopping: try again", retry_after=_SOONEST) from None
            raise
        finally:
            if timer is not None:
                timer.cancel()
            del task  # its future has what is raised, whose traceback has this frame: a circle with the image in it

    def _enter(self, task: _Task[Any]) -> None:
        """Put a call into the queue.

        Raises:
            Refusal: 429 or 503.
            Abandoned: it was abandoned before.
        """
        task.call.check()
        with self._changed:
            refusal = self._refusal(task)
            if refusal is None:
                self._changed.notify()
        if refusal is not None:
            reason, answer = refusal
            if self._metrics is not None:
                self._metrics.refused(reason)
            try:
                raise answer
            finally:
                del answer, refusal  # as in `run`
        self._tell()

    def _refusal(self, task: _Task[Any]) -> tuple[str, Refusal] | None:
        """Why a call is not taken, or None, and then it is in the queue. The lock is held."""
        if self._closed or task.call.arrived > self._draining:
            return "drain", Refusal(503, "the server is stopping: try again", retry_after=_SOONEST)
        idle = self._count - len(self._running)
        wait = 0.0 if self.waiting < idle else self._seconds_ahead(task.model)
        left = task.call.seconds_to_wait()
        if not task.call.admitted and left <= 0:
            return "deadline", self._too_late(_TIME_WAS_UP)
        if not task.call.admitted and wait > 2 * left:
            return "deadline", self._too_late(
                f"about {wait:.1f} s of work for {task.model} are ahead of this, and it has {left:.1f} s left"
            )
        if not self._waiting.push(task.model, task, idle=idle, always=task.call.admitted):
            return "queue", Refusal(
                429,
                f"the server is busy, and {self.waiting} calls wait already: try again later",
                retry_after=self._clears_in(),
            )
        return None

    def _too_late(self, message: str) -> Refusal:
        return Refusal(429, message, retry_after=self._clears_in())

    def _clears_in(self) -> float:
        """Seconds after which everything that waits and runs now is likely to be done."""
        return max(self._seconds_ahead(), _SOONEST)

    def _seconds_ahead(self, model: str | None = None) -> float:
        """Seconds after which what waits and runs now is likely to be done: that of one bundle, or of all."""
        now = time.monotonic()
        with self._changed:
            running = [task for task in self._running if model in (None, task.model)]
            done = sum(min(now - task.begun, self._waiting.expected(task.model)) for task in running)
            return max(self._waiting.seconds(model) - done, 0.0) / self._count

    def _expire(self, task: _Task[Any]) -> None:
        """Its time is up: refuse a call that still waits."""
        with self._changed:
            waits = self._waiting.remove(task.model, task)
            answer = self._too_late(_TIME_WAS_UP)
        if waits:
            if self._metrics is not None:
                self._metrics.refused("deadline")
            task.settle(None, answer)
            self._tell()

    def _stopped(self, task: _Task[Any], why: Why) -> None:
        """It was stopped: if nobody waits for it any more, it leaves the queue."""
        if not task.call.abandoned:
            return
        with self._changed:
            waits = self._waiting.remove(task.model, task)
        if waits:
            task.settle(None, Abandoned(why))
            if self._metrics is not None:
                self._metrics.stopped(why)
            self._tell()

    def _work(self) -> None:
        if self._gives_way:
            give_way()
        while (task := self._next()) is not None:
            self._tell()
            self._run(task)
            del task  # while this thread waits, nothing of the last call stays in memory
            self._tell()

    def _next(self) -> _Task[Any] | None:
        """The next call, once there is one; None when the lane is closed."""
        with self._changed:
            while not self._closed:
                if (found := self._waiting.pop()) is not None:
                    found[1].begun = time.monotonic()
                    self._running.add(found[1])
                    return found[1]
                self._changed.wait()
        return None

    def _run(self, task: _Task[Any]) -> None:
        call, result, error = task.call, None, None
        call.add("queue", task.begun - task.entered)
        in_time = call.admitted or call.why is not None or call.seconds_to_wait() > 0
        call.admitted = True
        try:
            call.check()
            if not in_time:
                raise self._too_late(_TIME_WAS_UP)  # noqa: TRY301
            result = task.function()
        except BaseException as failure:  # noqa: BLE001 - whoever awaits it gets it
            error = failure
        seconds = time.monotonic() - task.begun
        call.add("run", seconds)
        with self._changed:
            self._running.discard(task)
            self._waiting.done(task.model, seconds, typical=error is None)
        if self._metrics is not None and call.why is not None:
            self._metrics.stopped(call.why)
        task.settle(result, error)
        del error, task  # as in `run`

    def _tell(self) -> None:
        if self._metrics is not None:
            self._metrics.queued(self.name, self.waiting, self.running)

    def refuse_new(self) -> None:
        """From now on only calls of requests that have arrived are taken."""
        self._draining = time.monotonic()

    def stop_all(self, why: Why) -> None:
        """Stop the calls that wait or run."""
        with self._changed:
            calls = [task.call for task in (*self._waiting, *self._running)]
        for call in calls:
            call.stop(why)

    async def close(self) -> None:
        """Abandon what waits or runs, whose callers get a `Refusal` with 503, and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.stop_all("cancelled")
        for thread in self._threads:
            await asyncio.to_thread(thread.join, 5)
        self._threads = []
