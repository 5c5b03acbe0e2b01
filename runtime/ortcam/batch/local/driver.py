"""`run_local`: explain the items of a batch on this machine, with processes that score."""

import functools
import queue
import time
import warnings
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from ortcam.batch.items import Item
from ortcam.batch.job import Job
from ortcam.batch.local.cores import memory_of, share_machine
from ortcam.batch.local.lane import Lane
from ortcam.batch.local.messages import Broken, Done, Finish, Leaving, Ready, Setup, Task, Warned
from ortcam.batch.local.process import Ended, ScoringProcess
from ortcam.batch.local.supply import Supply
from ortcam.batch.local.writing import Writing
from ortcam.batch.output.parts import Output, PartWriter
from ortcam.batch.output.rows import Row
from ortcam.batch.progress import Tally
from ortcam.batch.sources.fetching import Fetcher
from ortcam.errors import ImageWarning, OrtcamError

__all__ = ["HUNG_SECONDS", "READ_SECONDS", "run_local"]

READ_SECONDS = 600.0  # the longest that fetching or decoding one image may take
HUNG_SECONDS = 3600.0  # without a sign of life from a process, longer than any single run of a graph takes

_POLL_SECONDS: Final = 0.25  # between two looks at whether to stop
_LONGEST_LOOK: Final = 1.0  # what counts of the time between two looks: the driver itself may have been stopped
_GRACE_SECONDS: Final = 3.0  # for the images in work when the batch is stopped
_MOST_DEATHS: Final = 2  # of a process that worked on one image alone, before the image is given up
_MOST_STARTS: Final = 3  # in a row of a process that does not get ready
_MORE_STARTS: Final = 10  # where others did, or where something outside ends it, such as the killer of a full memory
_FROM_OUTSIDE: Final = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")
_MOST_CRASHES: Final = 5  # images in a row that end their process, before one has succeeded
_MOST_WARNINGS: Final = 20  # of damaged images; a batch may have millions


def run_local(job: Job, items: Iterator[Item], output: Output, tally: Tally) -> None:
    """Explain items and write their rows, until there are no more or `job.stop` is set.

    Args:
        job: what to do.
        items: what to do it with; they are listed in another thread, a few ahead.
        output: where the parts go; that was begun.
        tally: counts what is done; called from another thread.

    Raises:
        OrtcamError: what is wrong with all of them. What was finished before is written.
    """
    driver = _Driver(job, items, output, tally)
    try:
        driver.run()
    finally:
        driver.close()
    driver.raise_failure()


class _Driver:
    """Hands tasks to lanes and takes rows. Everything happens in one thread, which takes events from others."""

    def __init__(self, job: Job, items: Iterator[Item], output: Output, tally: Tally) -> None:
        settings = job.settings
        limit = settings.memory_limit
        each = memory_of(settings.bundle) if limit is None else limit * 10**6
        shares = share_machine(job.processes, job.threads, providers=settings.providers, memory_each=each)
        setups = [
            Setup(settings, shares.threads, device, shares.decode_ahead and limit is None, READ_SECONDS)
            for device in shares.devices
        ]
        self._lanes = [Lane(setup) for setup in setups]
        self._job = job
        self._events: queue.SimpleQueue[tuple[Lane, ScoringProcess, Any] | None] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._writing = Writing(PartWriter(output, job.schema), tally, self._fail)
        fetcher = Fetcher(settings.storage_options, max_pixels=settings.max_pixels)
        self._supply = Supply(items, fetcher, lambda: self._events.put(None))
        self._again: deque[Task] = deque()
        self._crashes = 0  # images that were given up
        self._started = self._succeeded = False
        self._warnings = 0
        self._looked = time.monotonic()

    def run(self) -> None:
        """Do everything, or what is possible until it is to stop or something is wrong with all of it."""
        while not self._failure and not self._job.stop.is_set():
            self._feed()
            if self._supply.error is not None or self._is_over():
                self._failure = self._failure or self._supply.error
                return
            self._take(_POLL_SECONDS)
            self._end_what_hangs()
        if not self._failure:
            self._end_gracefully()

    def close(self) -> None:
        """End all processes, and write what is finished."""
        self._supply.close()
        for lane in self._lanes:
            if lane.process is not None:
                lane.process.kill()
        for lane in self._lanes:
            if lane.process is not None:
                lane.process.wait(_GRACE_SECONDS)
        self._writing.close()

    def raise_failure(self) -> None:
        """Raise what was wrong with all of the batch.

        Raises:
            OrtcamError: it.
        """
        if self._failure is not None:
            raise self._failure

    def _fail(self, error: BaseException) -> None:
        """Note what is wrong with the whole batch; called by the thread that writes, too."""
        self._failure = self._failure or error
        self._events.put(None)

    def _is_over(self) -> bool:
        return self._supply.exhausted and not self._again and all(lane.idle for lane in self._lanes)

    def _feed(self) -> None:
        """Start the processes that there is work for, and give tasks to those that can take some."""
        left = self._supply.listed  # no more processes than images
        for lane in self._lanes[:left]:
            if lane.process is None and not (self._supply.exhausted and not self._again and lane.idle):
                lane.start(functools.partial(self._hear, lane))
            wanted = lane.wanted((self._supply.left + len(self._again)) / len(self._lanes))
            if wanted:
                tasks = [self._again.popleft() for _ in range(min(wanted, len(self._again)))]
                lane.give([*tasks, *self._supply.take(wanted - len(tasks))])

    def _hear(self, lane: Lane, process: ScoringProcess, message: Any) -> None:
        self._events.put((lane, process, message))

    def _take(self, seconds: float) -> None:
        """Take the next event, and those that wait behind it."""
        try:
            event = self._events.get(timeout=seconds)
            for _ in range(self._events.qsize()):
                self._handle(event)
                event = self._events.get_nowait()
        except queue.Empty:
            return
        self._handle(event)

    def _handle(self, event: tuple[Lane, ScoringProcess, Any] | None) -> None:
        if event is None:
            return
        lane, process, message = event
        if lane.process is not process:
            return
        lane.hear()
        match message:
            case Ready():
                self._started = True
                lane.ready()
            case Done(rows):
                for number, made in rows:
                    if lane.take_back(number) is not None:
                        self._write(made)
            case Warned(category, text):
                self._warn(category, text)
            case Leaving():
                lane.leaving = True
                process.kill()  # it might wait for a thread of a library that hangs
            case Broken():
                self._fail(message.error())
            case Ended():
                self._end_of(lane, message)

    def _write(self, rows: tuple[Row, ...]) -> None:
        self._succeeded = self._succeeded or rows[0].error is None
        self._writing.put(rows)

    def _end_what_hangs(self) -> None:
        """End processes that do nothing, such as one that was stopped, or waits for a device for ever."""
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, _LONGEST_LOOK), now
        for lane in self._lanes:
            if lane.silent(passed) > HUNG_SECONDS and lane.process is not None:
                lane.hung = True
                lane.process.kill()

    def _end_of(self, lane: Lane, ended: Ended) -> None:
        """See to the tasks of a process that is gone; `_feed` starts another one."""
        if lane.hung:
            ended = Ended(f"no sign of life for {HUNG_SECONDS:g} s", ended.said)
        was_ready = lane.ended(self._again)
        if self._job.stop.is_set():
            return
        if not was_ready:
            patient = self._started or ended.how in _FROM_OUTSIDE
            if lane.failed_starts >= (_MORE_STARTS if patient else _MOST_STARTS):
                said = f": {ended.said}" if ended.said else ""
                self._fail(OrtcamError(f"the processes that score do not start ({ended.how}){said}"))
            return
        task = lane.culprit(_MOST_DEATHS)
        if task is None:
            return
        self._crashes += 1
        error = f"each process that worked on this image ended ({ended.how})"
        if self._crashes >= _MOST_CRASHES and not self._succeeded:
            said = f": {ended.said}" if ended.said else ""
            self._fail(OrtcamError(f"the processes that score end with each image ({ended.how}){said}"))
        self._write((Row(task.item.id, task.item.path, error=error),))

    def _warn(self, category: str, text: str) -> None:
        kind: type[Warning] = UserWarning
        if category == ImageWarning.__name__:
            self._warnings += 1
            if self._warnings > _MOST_WARNINGS:
                return
            if self._warnings == _MOST_WARNINGS:
                text += " (no more images are warned of; strict=True makes errors of damaged images)"
            kind = ImageWarning
        warnings.warn(text, kind, stacklevel=2)

    def _end_gracefully(self) -> None:
        """Let the processes finish the images in work, if that does not take long."""
        for lane in self._lanes:
            if lane.process is not None:
                lane.process.send(Finish())
        end = time.monotonic() + _GRACE_SECONDS
        while any(lane.process is not None for lane in self._lanes) and (left := end - time.monotonic()) > 0:
            self._take(min(left, _POLL_SECONDS))
