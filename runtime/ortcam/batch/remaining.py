"""What a batch has left to do: the images that no part of OUTPUT has, and on request those that failed."""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Final

from ortcam.batch.id_set import IdSet
from ortcam.batch.items import Item
from ortcam.batch.job import Job
from ortcam.batch.output.parts import Output
from ortcam.batch.progress import Tally
from ortcam.batch.sources.opening import Source
from ortcam.errors import OrtcamError
from ortcam.support.held_signals import orderly
from ortcam.support.terminal import printable

__all__ = ["RunEngine", "do_what_is_left"]

_LOOKED_UP: Final = 8192  # items whose ids are looked up together

# What explains items and writes their rows, until there are no more or the job is to stop.
RunEngine = Callable[[Job, Iterator[Item], Output, Tally], None]


def do_what_is_left(
    job: Job, engine: RunEngine, source: Source, output: Output, tally: Tally, *, limit: int | None, retry_failed: bool
) -> None:
    """Explain the images that are not finished.

    Args:
        job: how.
        engine: does it.
        source: of all images.
        output: that was begun.
        tally: counts what is done.
        limit: the first images of the source alone; None: all.
        retry_failed: explain those that failed, too, before the others.

    Raises:
        BaseException: what ended the run early, with a note that says how to go on.
    """
    left = _Left(job, engine, source, output, tally, limit)
    try:
        with orderly(job.stop):
            output.merge_staged()  # of a run that was killed
            if retry_failed:
                left.retry()
            if not job.stop.is_set():
                left.go_on()
    except BaseException as error:
        with contextlib.suppress(OrtcamError):
            if not output.withdraw():
                name = printable(output.name)
                error.add_note(f"what is finished is in {name}; --resume (resume=True) goes on with it")
        raise


class _Left:
    """What is left, and whoever does it."""

    def __init__(
        self, job: Job, engine: RunEngine, source: Source, output: Output, tally: Tally, limit: int | None
    ) -> None:
        self._job, self._engine, self._source, self._output = job, engine, source, output
        self._tally, self._limit = tally, limit

    def retry(self) -> None:
        """Explain again what failed, beside the parts, and then put it in its place."""
        failed = self._ids(failed=True)
        if failed and not self._job.stop.is_set():
            self._tally.expect(len(failed))
            self._work(self._those(failed, held=True), self._output.staging())
            self._output.merge_staged()
            self._tally.skip(-self._tally.snapshot().images)  # or they would be counted as finished before

    def go_on(self) -> None:
        """Explain what is not finished."""
        finished = self._ids()
        retried = self._tally.snapshot().images

        def expect(count: int) -> None:
            self._tally.expect(retried + max(min(count, self._limit or count) - len(finished), 0))

        if self._source.count is not None:
            expect(self._source.count)
        else:
            self._tally.expect(None)
            threading.Thread(target=self._count, args=(expect,), name="ortcam-count", daemon=True).start()
        self._work(self._those(finished, held=False), self._output)

    def _count(self, expect: Callable[[int], None]) -> None:
        """List INPUT for the time left, while its first images are explained; no further than to the limit."""
        with contextlib.suppress(OrtcamError):  # which whoever explains the images meets, too
            if self._limit is None:
                expect(self._source.counted())
            else:
                expect(sum(1 for _ in itertools.islice(self._source.items(), self._limit)))

    def _work(self, items: Iterator[Item], output: Output) -> None:
        """Start an engine, if there is anything to do."""
        first = next(items, None)
        if first is not None:
            self._tally.start()
            self._engine(self._job, itertools.chain([first], items), output, self._tally)

    def _ids(self, *, failed: bool | None = None) -> IdSet:
        """The ids in OUTPUT, which may be many: it ends early where the batch is to stop."""
        return IdSet(itertools.takewhile(lambda _: not self._job.stop.is_set(), self._output.ids(failed=failed)))

    def _those(self, ids: IdSet, *, held: bool) -> Iterator[Item]:
        """The items whose ids are in a set, or are not. They are looked up by thousands, but the first ones at once."""
        items, count = itertools.islice(self._source.items(), self._limit), 1
        while not self._job.stop.is_set() and (piece := list(itertools.islice(items, count))):
            found = ids.holds([item.id for item in piece])
            if not held:
                self._tally.skip(int(found.sum()))
            yield from (item for item, is_held in zip(piece, found.tolist(), strict=True) if is_held == held)
            count = min(2 * count, _LOOKED_UP)
