"""`Supply`: the items of a batch, listed ahead in a thread, so that a slow listing stops nobody."""

import math
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Final

from ortcam.batch.items import Item, NoPlace
from ortcam.batch.local.messages import Task
from ortcam.batch.sources.fetching import Fetcher
from ortcam.batch.storage import is_in_memory
from ortcam.errors import ImageError

__all__ = ["Supply"]

_MOST: Final = 256  # tasks that are listed ahead
_MOST_HELD: Final = 16  # of them those whose images are in memory, too
_POLL_SECONDS: Final = 0.2
_END_SECONDS: Final = 2.0


class Supply:
    """Tasks, in the order of the items. One thread lists, one other takes."""

    def __init__(self, items: Iterator[Item], fetcher: Fetcher, told: Callable[[], None]) -> None:
        """Begin to list.

        Args:
            items: of the batch; another thread iterates over them.
            fetcher: for images that only this process can fetch.
            told: called by that thread when there is something after `take` had found nothing, and at the end.
        """
        self._items, self._fetcher, self._told = items, fetcher, told
        self._tasks: queue.Queue[Task] = queue.Queue(_MOST)
        self._held = threading.Semaphore(_MOST_HELD)
        self._hungry = threading.Event()
        self._closed = threading.Event()
        self._listed = 0
        self._ended = False
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._list, name="ortcam-items", daemon=True)
        self._thread.start()

    @property
    def listed(self) -> int:
        """How many tasks there were so far."""
        return self._listed

    @property
    def left(self) -> float:
        """How many tasks were not taken yet; infinite while there may be more than are listed."""
        return self._tasks.qsize() if self._ended else math.inf

    @property
    def exhausted(self) -> bool:
        """Whether all tasks were listed and taken; `error` then says what ended the list early, if anything did."""
        return self._ended and self._tasks.empty()

    def take(self, most: int) -> list[Task]:
        """The next tasks, as many as are there."""
        found: list[Task] = []
        while len(found) < most:
            try:
                found.append(self._tasks.get_nowait())
            except queue.Empty:
                if self._hungry.is_set():
                    break
                self._hungry.set()  # and look once more: one may have come meanwhile
        for task in found:
            if task.content is not None:
                self._held.release()
        return found

    def close(self) -> None:
        """List no more. A listing that hangs is left alone."""
        self._closed.set()
        self._thread.join(_END_SECONDS)

    def _list(self) -> None:
        try:
            for item in self._items:
                if not self._put(self._task(item)):
                    break
        except BaseException as error:  # noqa: BLE001 - raised where the batch runs
            self.error = error
        self._fetcher.close()
        self._ended = True
        self._told()

    def _task(self, item: Item) -> Task:
        self._listed += 1
        if isinstance(item.place, NoPlace) or not is_in_memory(item.place.url):
            return Task(self._listed, item)
        try:
            content = self._fetcher.fetch(item.place)
        except ImageError as error:
            return Task(self._listed, Item(item.id, item.path, NoPlace(str(error)), item.targets))
        while not self._held.acquire(timeout=_POLL_SECONDS):
            if self._closed.is_set():
                break
        return Task(self._listed, item, content)

    def _put(self, task: Task) -> bool:
        while not self._closed.is_set():
            try:
                self._tasks.put(task, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            if self._hungry.is_set():
                self._hungry.clear()
                self._told()
            return True
        return False
