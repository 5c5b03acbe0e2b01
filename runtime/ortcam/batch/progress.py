"""`Tally`: how far a batch is, counted by its engine, for a bar and for the report."""

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence

from ortcam.batch.output.rows import Row

__all__ = ["OnFailure", "Progress", "Snapshot", "Tally"]


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """How far a batch is.

    Attributes:
        images: done in this run, those that failed included.
        total: to be done in this run; None where it is not known, or turned out to be more.
        rows: of these images.
        failures: images that failed.
        skipped: images that earlier runs had finished.
        seconds: since the engine started.
    """

    images: int = 0
    total: int | None = None
    rows: int = 0
    failures: int = 0
    skipped: int = 0
    seconds: float = 0.0

    @property
    def images_per_second(self) -> float:
        """Of this run."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None where it is not known."""
        if self.total is None or not self.images:
            return None
        return self.seconds * max(self.total - self.images, 0) / self.images


Progress = Callable[[Snapshot], None]
OnFailure = Callable[[str, str], None]


class Tally:
    """Counts images, rows and failures. Any thread may use it; `progress` and `on_failure` are called one at a time."""

    def __init__(self, progress: Progress | None = None, on_failure: OnFailure | None = None) -> None:
        """Begin with nothing.

        Args:
            progress: called after every change.
            on_failure: called with id and error of an image that failed.
        """
        self._progress, self._on_failure = progress, on_failure
        self._lock = threading.RLock()
        self._now = Snapshot()
        self._started: float | None = None

    def start(self) -> None:
        """Let the time begin, unless it has."""
        with self._lock:
            self._started = time.monotonic() if self._started is None else self._started

    def add(self, rows: Sequence[Row]) -> None:
        """Count the rows of one image, which are written or about to be."""
        first = rows[0]
        failures = [] if first.error is None else [(first.id, first.error)]
        self.count(images=1, rows=len(rows), failures=failures)

    def count(self, *, images: int, rows: int, failures: Sequence[tuple[str, str]] = ()) -> None:
        """Count images whose rows are elsewhere.

        Args:
            images: those that failed included.
            rows: of them.
            failures: id and error of those that failed.
        """
        with self._lock:
            now = self._now
            self._update(images=now.images + images, rows=now.rows + rows, failures=now.failures + len(failures))
            if self._on_failure is not None:
                for name, error in failures:
                    self._on_failure(name, error)

    def skip(self, images: int) -> None:
        """Count images that earlier runs had finished."""
        with self._lock:
            self._update(skipped=self._now.skipped + images)

    def expect(self, total: int | None) -> None:
        """Say how many images are to be done."""
        with self._lock:
            self._update(total=total)

    def snapshot(self) -> Snapshot:
        """How far the batch is."""
        with self._lock:
            seconds = 0.0 if self._started is None else time.monotonic() - self._started
            return dataclasses.replace(self._now, seconds=seconds)

    def _update(self, **changes: int | None) -> None:
        now = dataclasses.replace(self._now, **changes)  # type: ignore[arg-type]
        if now.total is not None and now.images > now.total:  # OUTPUT has ids that INPUT has not
            now = dataclasses.replace(now, total=None)
        self._now = now
        if self._progress is not None:
            self._progress(self.snapshot())
