"""`Jobs`: the jobs of a server. They are bounded in number and memory, and forgotten some time after their end."""

import asyncio
import contextlib
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from starlette.responses import Response

from ortcam.errors import OrtcamError
from ortcam.serve.http.logs import log
from ortcam.serve.http.refusals import Refusal, refusal_of
from ortcam.serve.jobs.job import STATES, Job, Record, error_response
from ortcam.serve.monitoring import Metrics
from ortcam.serve.scheduling.calls import Abandoned, Call, Why
from ortcam.serve.settings import RequestLimits

__all__ = ["Jobs", "Show", "Work"]

# Takes a map on the way, from any thread: the place of its image in the request, and what makes its record.
Show = Callable[[int, Record], None]
# Explains as a protocol asks, and makes its answer.
Work = Callable[[Show | None], Awaitable[Response]]

_MOST_BYTES: Final = 256 << 20  # of answers that are kept
_LONGEST_TURN: Final = 1e6  # seconds, for a call without an end
_SHARE: Final = 4  # of the places in the queue one in so many goes to jobs of a bundle; others wait before they decode
_ID_BYTES: Final = 18  # 144 bits of chance


class Jobs:
    """The jobs of one server; it belongs to the event loop.

    At most `limits.jobs` are kept. A job whose answer somebody has seen makes room for a new one. Any other is kept for
    `limits.job_seconds` after its end, so that nobody loses an answer that was promised.
    """

    def __init__(self, limits: RequestLimits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._jobs: dict[str, Job] = {}  # those that have ended first, by their end
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._places: dict[str, _Places] = {}

    @property
    def running(self) -> int:
        """Jobs and streams that have not ended."""
        return len(self._tasks)

    @property
    def unseen(self) -> int:
        """Jobs that have an answer which nobody has fetched."""
        return sum(job.ended and not job.fetched and job.state != "cancelled" for job in self._jobs.values())

    def submit(self, model: str, call: Call, work: Work, *, ended: Callable[[], None] = lambda: None) -> Job:
        """Start a job, and keep it.

        Args:
            model: name of the bundle.
            call: of the request.
            work: explains; what it raises becomes the answer.
            ended: called when it has ended and holds no memory any more.

        Raises:
            Refusal: 429, as many jobs as may be kept are not ended or not seen yet.
        """
        self._make_room()
        job = Job(secrets.token_urlsafe(_ID_BYTES), model, call)
        self._jobs[job.id] = job
        self._start(job, work, ended, kept=True)
        return job

    def run(self, model: str, call: Call, work: Work) -> Job:
        """Start a job that only its own request sees: a stream."""
        job = Job("", model, call)
        self._start(job, work, lambda: None, kept=False)
        return job

    def get(self, id_: str) -> Job:
        """Find a job.

        Raises:
            Refusal: 404, there is none of this id, or none any longer.
        """
        job = self._jobs.get(id_)
        if job is None:
            seconds = f"{self._limits.job_seconds:g}"
            raise Refusal(
                404, f"there is no such job; a job is forgotten {seconds} seconds after its end at the latest"
            )
        return job

    def cancel(self, job: Job) -> None:
        """Stop a job; it is kept for a while as one that was cancelled."""
        job.cancel()
        self._has_ended(job)

    def forget(self, job: Job) -> None:
        """Drop a job that has ended."""
        self._jobs.pop(job.id, None)
        timer = self._timers.pop(job.id, None)
        if timer is not None:
            timer.cancel()
        self._count()

    async def close(self) -> None:
        """Wait for the jobs that run; the lanes have stopped them, or let them finish."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _start(self, job: Job, work: Work, ended: Callable[[], None], *, kept: bool) -> None:
        task = asyncio.create_task(self._work(job, work, ended, kept=kept))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._count()

    async def _work(self, job: Job, work: Work, ended: Callable[[], None], *, kept: bool) -> None:
        try:
            response = await (self._in_turn(job, work) if kept else work(job.show))
        except Exception as error:  # noqa: BLE001 - it is the client's answer
            response = _answer_of(error, job.call)
        except asyncio.CancelledError:
            job.end(error_response(503, "the server ended before the job did"))
            raise
        finally:
            ended()
        job.end(response)
        if kept:
            self._has_ended(job)
            stages = {name: round(spent, 4) for name, spent in job.call.stages.items()}
            seconds, status = round(job.seconds, 4), response.status_code
            log("job", request=job.call.id, model=job.model, status=status, seconds=seconds, stages=stages)

    async def _in_turn(self, job: Job, work: Work) -> Response:
        """Do the work of a job that was accepted. It is never refused because others wait, unless its time is up.

        Raises:
            Refusal: 429, its time was up before its turn.
            Abandoned: it was cancelled before.
        """
        places = self._places.setdefault(job.model, _Places(max(1, self._limits.queue // _SHARE)))
        async with places.taken(job):
            job.call.admitted = True
            return await work(job.show)

    def _has_ended(self, job: Job) -> None:
        if job.id in self._jobs and job.id not in self._timers:
            self._jobs[job.id] = self._jobs.pop(job.id)
            loop = asyncio.get_running_loop()
            self._timers[job.id] = loop.call_later(self._limits.job_seconds, self.forget, job)
            self._metrics.job_ended(job.model, job.state, job.seconds, dict(job.call.stages))
        self._count()

    def _make_room(self) -> None:
        ended = [job for job in self._jobs.values() if job.ended]
        while self._is_full:
            seen = next((job for job in ended if job.fetched or job.state == "cancelled"), None)
            if seen is None:
                self._metrics.refused("queue")
                raise Refusal(429, self._why_full, retry_after=self._limits.job_seconds if ended else 5.0)
            ended.remove(seen)
            self.forget(seen)

    @property
    def _is_full(self) -> bool:
        kept = self._jobs.values()
        return len(kept) >= self._limits.jobs or sum(job.size for job in kept) > _MOST_BYTES

    @property
    def _why_full(self) -> str:
        waiting = sum(not job.ended for job in self._jobs.values())
        return (
            f"{len(self._jobs)} jobs are kept, {waiting} of them not ended: this server keeps at most "
            f"{self._limits.jobs}, and {_MOST_BYTES >> 20} MiB of answers, until they are fetched or deleted"
        )

    def _count(self) -> None:
        states = Counter(job.state for job in self._jobs.values())
        self._metrics.jobs({state: states[state] for state in STATES})


class _Places:
    """How many jobs of a bundle are in the queue at once. The others wait here, and have not been decoded yet."""

    def __init__(self, count: int) -> None:
        self._semaphore = asyncio.Semaphore(count)

    @contextlib.asynccontextmanager
    async def taken(self, job: Job) -> AsyncIterator[None]:
        """Hold a place within the block, once there is one.

        Raises:
            Refusal: 429, its time was up before its turn.
            Abandoned: it was cancelled before.
        """
        turn = asyncio.ensure_future(self._semaphore.acquire())
        over = asyncio.ensure_future(job.over(max(min(job.call.seconds_to_wait(), _LONGEST_TURN), 0.0)))
        loop = asyncio.get_running_loop()

        def stopped(_: Why) -> None:
            if job.call.abandoned:
                loop.call_soon_threadsafe(over.cancel)

        try:
            with job.call.on_stop(stopped):
                await asyncio.wait((turn, over), return_when=asyncio.FIRST_COMPLETED)
            job.call.check()
            if not turn.done():
                raise Refusal(429, "the request's time was up before its turn: others were ahead of it")
            yield
        finally:
            over.cancel()
            if turn.done() and not turn.cancelled():
                self._semaphore.release()
            else:
                turn.cancel()


def _answer_of(error: Exception, call: Call) -> Response:
    if isinstance(error, Abandoned):
        return error_response(499, "the client has gone, or the job was cancelled")
    refusal = refusal_of(error) if isinstance(error, OrtcamError) else error
    if not isinstance(refusal, Refusal):
        log("internal error", level=logging.ERROR, error=error, request=call.id)
        return error_response(500, f"internal error, request id {call.id}")
    if refusal.status >= 500:
        log("failed", request=call.id, error=error)
    return error_response(refusal.status, refusal.message, refusal.headers)
