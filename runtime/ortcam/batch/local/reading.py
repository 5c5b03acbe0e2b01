"""`ReadAhead`: images are fetched, and perhaps decoded, in threads while earlier ones are explained."""

import functools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from ortcam.batch.items import CellPlace, FilePlace, MemberPlace
from ortcam.batch.local.messages import Task
from ortcam.batch.sources.fetching import Fetcher
from ortcam.batch.storage import is_url
from ortcam.images.photograph import Photograph

__all__ = ["ReadAhead", "ReadImage"]

_LOCAL_THREADS: Final = 2  # one decodes while the other waits for the disk
_REMOTE_THREADS: Final = 8  # a store answers after a while, and answers several at once
_MOST_IMAGES: Final = 8  # that wait to be explained
_MOST_BYTES: Final = 128 << 20  # of their pixels or files; one image may have more


class ReadImage:
    """An image that was fetched, or decoded, too, or what went wrong.

    Attributes:
        task: whose image it is.
        nbytes: that it holds.
    """

    def __init__(
        self, task: Task, outcome: bytes | Photograph | Exception, decode: Callable[[bytes], Photograph | Exception]
    ) -> None:
        self.task = task
        self._outcome, self._decode = outcome, decode
        self.nbytes = _nbytes(outcome)

    def photograph(self) -> Photograph:
        """The image, which is decoded now if it was not before.

        Raises:
            Exception: what went wrong.
        """
        outcome = self._decode(self._outcome) if isinstance(self._outcome, bytes) else self._outcome
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class ReadAhead:
    """Fetches in several threads, and decodes one image at a time. What is ready waits in a bounded room.

    Decoding ahead is for a process with a core, or a GPU, to spare. On its only core it would disturb the scoring: an
    image then takes more of the core's time than if it is decoded when its turn comes.

    Files of their own are fetched side by side. Images within tables and archives are fetched in the order in which
    they come, by one fetcher that keeps open what the next one may lie in.
    """

    def __init__(
        self,
        read: Callable[[Task, bytes], Photograph],
        make_fetcher: Callable[[], Fetcher],
        *,
        decode_ahead: bool = True,
        most_bytes: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start no thread yet.

        Args:
            read: decodes and preprocesses.
            make_fetcher: makes a fetcher for one thread.
            decode_ahead: in these threads; otherwise by `ReadImage.photograph`, in the thread that asks for the image.
            most_bytes: of images that wait to be explained, 128 MiB unless given; one may have more.
            clock: the time in seconds.
        """
        self._read, self._make_fetcher, self._clock = read, make_fetcher, clock
        self._decode_ahead = decode_ahead
        self._most_bytes = _MOST_BYTES if most_bytes is None else most_bytes
        self._tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[ReadImage | None] = queue.SimpleQueue()
        self._turn = threading.Lock()  # who holds it takes the next task
        self._decoding = threading.Lock()
        self._room = threading.Condition()
        self._images = self._bytes = 0  # that are ready
        self._in_order: Fetcher | None = None
        self._working: dict[int, tuple[float, Task]] = {}  # since when each thread reads which image
        self._threads = 0

    def put(self, task: Task) -> None:
        """Have an image read."""
        place = task.item.place
        wanted = _REMOTE_THREADS if isinstance(place, FilePlace | MemberPlace) and is_url(place.url) else _LOCAL_THREADS
        self._tasks.put(task)
        while self._threads < wanted:
            self._threads += 1
            threading.Thread(target=self._work, name="ortcam-fetch", daemon=True).start()

    def get(self, seconds: float) -> ReadImage | None:
        """The next image that is ready; None if there is none after so many seconds.

        Images become ready in about the order in which they were put.
        """
        try:
            found = self._ready.get(timeout=seconds) if seconds else self._ready.get_nowait()
        except queue.Empty:
            return None
        if found is not None:
            with self._room:
                self._images -= 1
                self._bytes -= found.nbytes
                self._room.notify_all()
        return found

    def wake(self) -> None:
        """Let `get` return, which may be waiting."""
        self._ready.put(None)

    def overdue(self, seconds: float) -> Task | None:
        """An image that is being fetched or decoded for longer than so many seconds; None if there is none."""
        now = self._clock()
        return next((task for since, task in list(self._working.values()) if now - since > seconds), None)

    def _work(self) -> None:
        fetcher = self._make_fetcher()
        while True:
            with self._turn:
                task = self._tasks.get()
                content = self._fetch_in_order(task) if _is_in_order(task) else None
            if content is None:
                content = self._fetch(task, fetcher)
            self._ready.put(self._in_its_room(task, content))

    def _fetch_in_order(self, task: Task) -> bytes | Exception:
        if self._in_order is None:
            self._in_order = self._make_fetcher()
        return self._fetch(task, self._in_order)

    def _fetch(self, task: Task, fetcher: Fetcher) -> bytes | Exception:
        if task.content is not None:
            return task.content
        with self._watched(task):
            try:
                return fetcher.fetch(task.item.place)
            except Exception as error:  # noqa: BLE001 - raised where the image is asked for
                return error

    def _in_its_room(self, task: Task, content: bytes | Exception) -> ReadImage:
        with self._decoding:
            with self._room:
                self._room.wait_for(lambda: self._images < _MOST_IMAGES and self._bytes < self._most_bytes)
            decode = functools.partial(self._decode, task)
            outcome = decode(content) if self._decode_ahead and isinstance(content, bytes) else content
            found = ReadImage(task, outcome, decode)
            with self._room:
                self._images += 1
                self._bytes += found.nbytes
            return found

    def _decode(self, task: Task, content: bytes) -> Photograph | Exception:
        with self._watched(task):
            try:
                return self._read(task, content)
            except Exception as error:  # noqa: BLE001 - as above
                return error

    @contextmanager
    def _watched(self, task: Task) -> Iterator[None]:
        thread = threading.get_ident()
        self._working[thread] = self._clock(), task
        try:
            yield
        finally:
            del self._working[thread]


def _is_in_order(task: Task) -> bool:
    place = task.item.place
    return isinstance(place, CellPlace) or (isinstance(place, MemberPlace) and not is_url(place.url))


def _nbytes(outcome: bytes | Photograph | Exception) -> int:
    if isinstance(outcome, Photograph):
        return outcome.pixels.nbytes + outcome.model_input.nbytes
    return len(outcome) if isinstance(outcome, bytes) else 0
