"""Messages arrive whole, and a process that is gone is noticed."""

import os
import threading

import numpy as np
import pytest

from ortcam.batch.items import FilePlace, Item
from ortcam.batch.local.messages import BrokenStreamError, Done, Sender, Task, Tasks, receive
from ortcam.batch.output.rows import Row


@pytest.fixture
def ends():
    """The ends of a pipe: to read, to write."""
    reading, writing = (os.fdopen(end, mode, buffering=0) for end, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
    with reading, writing:
        yield reading, writing


def test_messages_longer_than_a_pipe_arrive_in_order(ends):
    reading, writing = ends
    long = Tasks((Task(1, Item("a", "a.png", FilePlace("a.png")), bytes(1 << 20)),))
    rows = Done(((1, (Row("a", "a.png", map=np.ones((7, 7), np.float16)),)),))
    sender = Sender(writing)
    thread = threading.Thread(target=lambda: [sender.send(message) for message in (long, rows)])
    thread.start()
    assert receive(reading) == long
    ((number, (row,)),) = receive(reading).rows
    thread.join()
    assert (number, row.id) == (1, "a")
    assert np.array_equal(row.map, np.ones((7, 7)))


@pytest.mark.parametrize("left", [0, 5, 9])
def test_a_stream_that_ends_is_broken(ends, left):
    reading, writing = ends
    writing.write((100).to_bytes(8, "little")[:left] + bytes(max(0, left - 8)))
    writing.close()
    with pytest.raises(BrokenStreamError):
        receive(reading)


def test_nothing_can_be_sent_to_a_process_that_is_gone(ends):
    reading, writing = ends
    reading.close()
    with pytest.raises(BrokenStreamError):
        Sender(writing).send(Done(()))
