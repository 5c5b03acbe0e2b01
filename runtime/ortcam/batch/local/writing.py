"""`Writing`: rows are written in a thread, so that a slow disk or store does not keep the processes waiting."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from ortcam.batch.output.parts import PartWriter
from ortcam.batch.output.rows import Row
from ortcam.batch.progress import Tally

__all__ = ["Writing"]

_MOST_BYTES: Final = 64 << 20  # of rows that wait for the thread
_TICK_SECONDS: Final = 1.0  # between two looks at whether a part is old enough


class Writing:
    """Takes the rows of images, counts them, and puts them into parts."""

    def __init__(self, writer: PartWriter, tally: Tally, failed: Callable[[BaseException], None]) -> None:
        """Begin.

        Args:
            writer: of the parts; from now on the thread's own.
            tally: counts the rows.
            failed: called by the thread with what it could not do; it then writes no more.
        """
        self._writer, self._tally, self._failed = writer, tally, failed
        self._rows: deque[tuple[Sequence[Row], int]] = deque()
        self._bytes = 0
        self._closing = False
        self._over = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="ortcam-write", daemon=True)
        self._thread.start()

    def put(self, rows: Sequence[Row]) -> None:
        """Write the rows of one image soon. Waits while too many wait already."""
        size = sum(row.nbytes for row in rows)
        with self._changed:
            self._changed.wait_for(lambda: self._bytes < _MOST_BYTES or self._over)
            self._rows.append((rows, size))
            self._bytes += size
            self._changed.notify_all()

    def close(self) -> None:
        """Write what there is, and wait until it is written."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        try:
            try:
                while self._step():
                    pass
            finally:  # also where it was a callback of the user's that failed
                self._writer.flush()
        except BaseException as error:  # noqa: BLE001 - raised where the batch runs
            self._failed(error)
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _step(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._rows or self._closing, _TICK_SECONDS)
            if not self._rows and self._closing:
                return False
            found = list(self._rows)
            self._rows.clear()
        for rows, size in found:
            self._writer.add(rows)
            with self._changed:
                self._bytes -= size
                self._changed.notify_all()
        self._count([rows for rows, _ in found])
        self._writer.tick()
        return True

    def _count(self, images: Sequence[Sequence[Row]]) -> None:
        failures = [(rows[0].id, rows[0].error) for rows in images if rows[0].error is not None]
        if images:
            self._tally.count(images=len(images), rows=sum(map(len, images)), failures=failures)
