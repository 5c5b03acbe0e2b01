"""Rows are written and counted in a thread, which says when it cannot."""

import threading

import pytest

from ortcam.batch.local.writing import Writing
from ortcam.batch.output.rows import Row
from ortcam.batch.progress import Tally
from ortcam.errors import OutputError

GUARD = 30.0  # seconds


class Writer:
    def __init__(self, error=None):
        self.error = error
        self.added, self.flushed = [], 0

    def add(self, rows):
        if self.error is not None:
            raise self.error
        self.added += [row.id for row in rows]

    def tick(self):
        pass

    def flush(self):
        if self.error is not None:
            raise self.error
        self.flushed += 1


def test_everything_is_written_and_counted():
    writer, tally, failed = Writer(), Tally(), []
    writing = Writing(writer, tally, failed.append)
    for number in range(100):
        writing.put([Row(str(number), "", error="broken" if number == 7 else None)] * 2)
    writing.close()
    assert writer.added == [str(number // 2) for number in range(200)]
    assert writer.flushed == 1
    now = tally.snapshot()
    assert (now.images, now.rows, now.failures, failed) == (100, 200, 1, [])


@pytest.mark.parametrize("size", [1, 100 << 20])
def test_a_disk_that_is_full_is_reported_and_nobody_waits_for_it(size):
    failed = []
    told = threading.Event()

    def note(error):
        failed.append(error)
        told.set()

    writing = Writing(Writer(OutputError("the disk is full")), Tally(), note)
    writing.put([Row("a", "", overlay=bytes(size))])
    assert told.wait(GUARD)
    writing.put([Row("b", "")])
    writing.close()
    assert [str(error) for error in failed] == ["the disk is full"]


def test_what_a_callback_raises_ends_the_batch_after_its_rows_are_written():
    def interrupt(_):
        raise KeyboardInterrupt

    writer, failed = Writer(), []
    writing = Writing(writer, Tally(interrupt), failed.append)
    writing.put([Row("a", "")])
    writing.close()
    assert (writer.added, writer.flushed) == (["a"], 1)
    assert [type(error) for error in failed] == [KeyboardInterrupt]
