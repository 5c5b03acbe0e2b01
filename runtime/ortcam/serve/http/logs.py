"""The log: one JSON object per line, written by a thread of its own, so that no disk or pipe holds up a request."""

import contextlib
import datetime as dt
import json
import logging
import queue
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

__all__ = ["LogWriter", "log", "logged_warnings"]

_MOST_WAITING: Final = 10_000  # lines; more are dropped, and counted
_LONGEST_LINE: Final = 16_384
_LONGEST_WAIT: Final = 2.0  # seconds at the end, for the last lines

_logger: Final = logging.getLogger("ortcam.serve")


def log(event: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: object) -> None:
    """Write a line.

    Args:
        event: what happened, in one or two words.
        level: of `logging`.
        error: whose traceback goes into the line.
        **fields: what else is known: numbers, texts, lists and objects of JSON.
    """
    _logger.log(level, event, extra={"fields": fields}, exc_info=error)


@contextlib.contextmanager
def logged_warnings() -> Iterator[None]:
    """Within the block, Python's warnings are lines, too: a request may cause one, and the log is JSON alone."""
    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        log("warning", level=logging.WARNING, kind=category.__name__, reason=str(message))

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


class _JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": record.getMessage()[:_LONGEST_LINE],
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)[-_LONGEST_LINE:]
        return json.dumps(line, default=str, ensure_ascii=True)


class LogWriter(logging.Handler):
    """Writes lines in a thread. A place that takes no more (full disk, closed pipe) costs lines, never a request.

    Attributes:
        dropped: lines that could not be written so far.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Open nothing yet.

        Args:
            path: of a file that lines are appended to; None: standard error.
        """
        super().__init__()
        self.setFormatter(_JsonLines())
        self.dropped = 0
        self._path = path
        self._file: IO[str] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._write_all, name="ortcam-log", daemon=True)

    def start(self) -> None:
        """Begin to write.

        Raises:
            OSError: the file cannot be opened.
        """
        self.reopen()
        self._thread.start()

    def reopen(self) -> None:
        """Open the file anew, say after it was rotated.

        Raises:
            OSError: the file cannot be opened; lines go where they went.
        """
        if self._path is None:
            return
        opened = self._path.open("a", encoding="utf-8")
        before, self._file = self._file, opened
        if before is not None:
            with contextlib.suppress(OSError, ValueError):
                before.close()

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line; never waits."""
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self.dropped += 1
        except Exception:  # noqa: BLE001 - a line that cannot be formatted
            self.dropped += 1

    def stop(self) -> None:
        """Write what waits, for two seconds at most."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(_LONGEST_WAIT)

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                to = self._file or sys.stderr
                to.write(line + "\n")
                to.flush()
            except (OSError, ValueError):
                self.dropped += 1

    @contextlib.contextmanager
    def taking(self, *names: str) -> Iterator[None]:
        """Take the lines of loggers, and keep them from all others' handlers."""
        before = []
        for name in names:
            logger = logging.getLogger(name)
            before.append((logger, logger.level, logger.propagate))
            logger.addHandler(self)
            logger.setLevel(logging.INFO)
            logger.propagate = False
        try:
            yield
        finally:
            for logger, level, propagate in before:
                logger.removeHandler(self)
                logger.setLevel(level)
                logger.propagate = propagate
