"""`Lane`: the tasks of one scoring process after another; it finds the image that ends its processes."""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from ortcam.batch.local.messages import Setup, Task, Tasks
from ortcam.batch.local.process import Heard, ScoringProcess

__all__ = ["Lane"]

_FEWEST: Final = 2  # tasks that a process has: one in work, the others read ahead
_MOST: Final = 32
_SECONDS_AHEAD: Final = 2.0  # how long a process has work without hearing from the driver
_SECONDS_AT_THE_END: Final = 0.05  # the same, when few tasks are left
_RECENT: Final = 0.2  # how much the last images count in the mean time of one


class Lane:
    """What one process has to do, and what becomes of that when the process ends.

    A process that ends may have been ended by one of its images. So each of these is then tried alone. An image whose
    process ends again, and again, is the culprit; the others lose a little time.

    Attributes:
        process: None where there is none.
        failed_starts: processes in a row that ended before they were ready.
        leaving: whether the process has said that it ends on purpose.
        hung: whether the process was ended because nothing was heard of it.
    """

    def __init__(
        self,
        setup: Setup,
        begin: Callable[[Setup, Heard], ScoringProcess] = ScoringProcess,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin without a process.

        Args:
            setup: of its processes.
            begin: starts a process.
            clock: the time in seconds.
        """
        self._begin = begin
        self.process: ScoringProcess | None = None
        self.failed_starts = 0
        self.leaving = self.hung = False
        self._silence = 0.0
        self._setup, self._clock = setup, clock
        self._ready = False
        self._given: dict[int, Task] = {}
        self._suspects: deque[Task] = deque()
        self._alone: Task | None = None
        self._deaths = 0  # while the task that is tried alone was tried
        self._seconds: float | None = None  # per image
        self._last = clock()

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do."""
        return not self._given and not self._suspects

    def wanted(self, share: float = math.inf) -> int:
        """How many tasks it can take now. Few if images take long or few are left, so that all lanes end together.

        Args:
            share: of the tasks that no lane has, those that this one will get if all are equally fast.
        """
        if not self._ready or self._suspects or self._alone is not None:
            return 0
        room = max(_FEWEST, min(_MOST, self._in(_SECONDS_AHEAD), max(share / 2, self._in(_SECONDS_AT_THE_END))))
        free = math.ceil(room) - len(self._given)
        return free if 2 * free >= room or len(self._given) < _FEWEST else 0

    def start(self, heard: Heard) -> None:
        """Start a process.

        Raises:
            OrtcamError: the system starts no more processes.
        """
        self._ready = self.leaving = self.hung = False
        self._silence = 0.0
        self.process = self._begin(self._setup, heard)

    def ready(self) -> None:
        """Note that the process takes tasks."""
        self._ready, self.failed_starts = True, 0
        self._try_alone()

    def hear(self) -> None:
        """Note that the process has said something."""
        self._silence = 0.0

    def silent(self, seconds: float) -> float:
        """How long nothing was heard of the process, though it has something to do.

        Args:
            seconds: that have gone by since the last call.
        """
        waits = self.process is None or (self._ready and self.idle)
        self._silence = 0.0 if waits else self._silence + seconds
        return self._silence

    def give(self, tasks: Sequence[Task]) -> None:
        """Give tasks to the process."""
        if not tasks or self.process is None:
            return
        if not self._given:
            self._last = self._clock()
        self._given.update((task.number, task) for task in tasks)
        self.process.send(Tasks(tuple(tasks)))

    def take_back(self, number: int) -> Task | None:
        """Note that a task is done; None if it is none of these."""
        task = self._given.pop(number, None)
        if task is not None:
            now = self._clock()
            seconds, self._last = now - self._last, now
            self._seconds = seconds if self._seconds is None else self._seconds + _RECENT * (seconds - self._seconds)
            if task is self._alone:
                self._alone, self._deaths = None, 0
                self._try_alone()
        return task

    def ended(self, again: deque[Task]) -> bool:
        """Note that the process is gone; whether it had been ready.

        Args:
            again: takes the tasks of a process that left on purpose.
        """
        self.process = None
        if not self._ready:
            self.failed_starts += 1
            return False
        self._ready = False
        if self.leaving:
            again.extend(self._given.values())
            self._alone, self._deaths = None, 0
        elif self._alone is not None:
            self._deaths += 1
            self._suspects.appendleft(self._alone)
        else:
            self._suspects.extend(self._given.values())
        self._given.clear()
        return True

    def culprit(self, deaths: int) -> Task | None:
        """The task that was tried alone while so many processes ended; it is then given up. None if there is none."""
        if self._alone is None or self._deaths < deaths:
            return None
        task = self._suspects.popleft()
        self._alone, self._deaths = None, 0
        return task

    def _in(self, seconds: float) -> float:
        """How many tasks the process does in so many seconds; 0 if that is not known yet."""
        return 0.0 if self._seconds is None else seconds / max(self._seconds, 1e-9)

    def _try_alone(self) -> None:
        if self._suspects:
            self._alone = self._suspects.popleft()
            self.give([self._alone])
