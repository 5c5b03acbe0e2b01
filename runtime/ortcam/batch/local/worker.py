"""A process that scores: `python -m ortcam.batch.local.worker`. The driver starts it, and talks to it by its pipes.

It reads images ahead in threads, explains one after the other, and sends rows. It ends when its input ends, so it never
outlives the driver. Native code may crash it: the driver then starts another one.
"""

import contextlib
import os
import signal
import threading
import time
import traceback
import warnings
from typing import IO, Any, Final

from ortcam.batch.explaining import IMAGES_BYTES, RowMaker
from ortcam.batch.local.messages import (
    Alive,
    Broken,
    BrokenStreamError,
    Done,
    Finish,
    Found,
    Leaving,
    Ready,
    Search,
    Sender,
    Setup,
    Task,
    Tasks,
    Warned,
    receive,
)
from ortcam.batch.local.reading import ReadAhead, ReadImage
from ortcam.batch.output.rows import Row
from ortcam.batch.probing import find_what_fits
from ortcam.batch.sources.fetching import Fetcher
from ortcam.errors import ImageError, ImageWarning, OrtcamError
from ortcam.images.photograph import Photograph
from ortcam.support.terminal import as_text

__all__ = ["main"]

_MOST_IMAGES: Final = 8  # whose rows are sent in one message
_SEND_SECONDS: Final = 0.05  # after which rows are sent, however few there are
_LOOK_SECONDS: Final = 1.0  # between two looks at what takes too long
_ALIVE_SECONDS: Final = 10.0  # between two signs of life, while there are no rows to send

_reading = threading.local()  # `name`: the id of the image that a thread reads


def main() -> int:
    """Take a setup and then tasks from standard input, send rows to standard output; or search. An exit code."""
    # Whatever prints to descriptor 1 would break a message.
    answers = Sender(os.fdopen(os.dup(1), "wb", buffering=0))
    os.dup2(2, 1)
    questions = os.fdopen(0, "rb", buffering=0, closefd=False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which says when to end
    _send_warnings(answers)
    try:
        asked = receive(questions)
        if isinstance(asked, Search):
            answers.send(Found(*find_what_fits(asked.settings, threads=asked.threads)))
            return 0
        return _Worker(asked, questions, answers).run()
    except BrokenStreamError:
        return 0
    except OrtcamError as error:
        answers.send(Broken(type(error).__name__, as_text(str(error))))
    except Exception:  # noqa: BLE001 - the driver raises it
        answers.send(Broken("", traceback.format_exc()))
    return 1


class _Worker:
    def __init__(self, setup: Setup, questions: IO[bytes], answers: Sender) -> None:
        self._setup, self._questions, self._answers = setup, questions, answers
        settings = setup.settings
        self._maker = RowMaker(settings, threads=setup.threads, device=setup.device, goes_on=self._live)
        self._ahead = ReadAhead(
            self._read,
            lambda: Fetcher(settings.storage_options, max_pixels=settings.max_pixels),
            decode_ahead=setup.decode_ahead,
            most_bytes=None if settings.memory_limit is None else IMAGES_BYTES,
        )
        self._finishing = threading.Event()
        self._done: list[tuple[int, tuple[Row, ...]]] = []
        self._sent = self._lived = time.monotonic()

    def run(self) -> int:
        """Explain until it is enough; an exit code."""
        threading.Thread(target=self._listen, name="ortcam-listen", daemon=True).start()
        threading.Thread(target=self._watch, name="ortcam-watch", daemon=True).start()
        self._answers.send(Ready())
        while not self._finishing.is_set():
            found = self._ahead.get(0)
            if found is None:
                self._send()
                self._live()
                found = self._ahead.get(_ALIVE_SECONDS)
            if found is not None:
                self._explain(found)
        self._send()
        return 0

    def _explain(self, found: ReadImage) -> None:
        self._done.append((found.task.number, tuple(self._maker.rows_or_failure(found.task.item, found.photograph))))
        if len(self._done) >= _MOST_IMAGES or time.monotonic() - self._sent > _SEND_SECONDS:
            self._send()

    def _send(self) -> None:
        if self._done:
            self._answers.send(Done(tuple(self._done)))
            self._done = []
        self._sent = time.monotonic()

    def _live(self) -> None:
        """Let the driver know that this process has not come to a halt."""
        now = time.monotonic()
        if now - self._lived > _ALIVE_SECONDS:
            self._lived = now
            self._answers.send(Alive())

    def _watch(self) -> None:
        """Have this process ended when a read takes too long, in whatever thread: none can be ended on its own."""
        while (late := self._ahead.overdue(self._setup.read_seconds)) is None:
            time.sleep(_LOOK_SECONDS)
        error = ImageError(f"cannot be fetched or decoded within {self._setup.read_seconds:g} s")
        with contextlib.suppress(BrokenStreamError):  # `_listen` sees to that
            self._answers.send(Done(((late.number, (self._maker.failed(late.item, error),)),)))
            self._answers.send(Leaving())

    def _read(self, task: Task, content: bytes) -> Photograph:
        _reading.name = task.item.id
        return self._maker.read(content)

    def _listen(self) -> None:
        try:
            while True:
                message = receive(self._questions)
                if isinstance(message, Finish):
                    self._finishing.set()
                    self._ahead.wake()
                elif isinstance(message, Tasks):
                    for task in message.tasks:
                        self._ahead.put(task)
        except BrokenStreamError:
            os._exit(0)  # the driver is gone, whatever runs here


def _send_warnings(answers: Sender) -> None:
    """Let the driver say what this process warns of. The standard filters would show some once, and hide others."""

    def send(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        text = as_text(str(message))
        if issubclass(category, ImageWarning):
            text = f"{as_text(getattr(_reading, 'name', ''))}: {text}"
        answers.send(Warned(category.__name__, text))

    warnings.simplefilter("always")
    warnings.showwarning = send


if __name__ == "__main__":
    os._exit(main())  # at once: a thread of a library may hang
