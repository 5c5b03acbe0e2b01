"""Images are read ahead, as many as there is room for, and what goes wrong is said where the image is asked for."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from ortcam.batch.items import CellPlace, FilePlace, Item
from ortcam.batch.local.messages import Task
from ortcam.batch.local.reading import ReadAhead
from ortcam.errors import ImageError
from ortcam.images.photograph import Photograph

GUARD = 30.0  # seconds


def task(number, place=None):
    return Task(number, Item(str(number), "", place or FilePlace(str(number))))


def photograph(number, side=1):
    return Photograph(np.zeros((side, side, 3), np.uint8), np.full((1, 1, 1, 1), number, np.float32), {}, None)


class Fetcher:
    """Fetches the number of an image; notes who fetched what."""

    def __init__(self, notes=None):
        self.notes = [] if notes is None else notes

    def fetch(self, place):
        if place.url == "gone":
            raise ImageError("it is gone")
        self.notes.append((id(self), getattr(place, "row", None)))
        return place.url.encode()


def test_images_are_read_and_errors_kept():
    ahead = ReadAhead(lambda task, content: photograph(int(content)), Fetcher)
    for number, name in enumerate(["10", "11", "gone", "13"]):
        ahead.put(task(number, FilePlace(name)))
    found = {read.task.number: read for read in (ahead.get(GUARD) for _ in range(4))}
    assert [found[number].photograph().model_input.item() for number in (0, 1, 3)] == [10, 11, 13]
    with pytest.raises(ImageError, match="it is gone"):
        found[2].photograph()
    assert ahead.get(0) is None


def test_images_may_be_fetched_ahead_and_decoded_when_they_are_asked_for():
    decoded = []

    def read(task, content):
        decoded.append((task.number, threading.get_ident()))
        if content == b"bad":
            raise ImageError("it is no image")
        return photograph(int(content))

    ahead = ReadAhead(read, Fetcher, decode_ahead=False)
    for number, name in enumerate(["10", "gone", "bad"]):
        ahead.put(task(number, FilePlace(name)))
    found = {read.task.number: read for read in (ahead.get(GUARD) for _ in range(3))}
    assert not decoded
    assert found[0].photograph().model_input.item() == 10
    for number, what in {1: "it is gone", 2: "it is no image"}.items():
        with pytest.raises(ImageError, match=what):
            found[number].photograph()
    assert decoded == [(0, threading.get_ident()), (2, threading.get_ident())]


def test_content_that_came_with_the_task_is_not_fetched():
    ahead = ReadAhead(lambda task, content: photograph(int(content)), lambda: SimpleNamespace(fetch=None))
    ahead.put(Task(0, Item("0", "", FilePlace("memory://0")), b"7"))
    assert ahead.get(GUARD).photograph().model_input.item() == 7


def test_files_wait_in_a_bounded_room():
    fetched = []

    class Large(Fetcher):
        def fetch(self, place):
            fetched.append(place)
            return bytes(50 << 20)

    ahead = ReadAhead(lambda task, content: photograph(0), Large, decode_ahead=False)
    for number in range(20):
        ahead.put(task(number))
    for taken in range(1, 12):
        assert ahead.get(GUARD) is not None
        assert len(fetched) <= 3 + 2 + taken  # three of 50 MB have room, and each of two threads holds one


@pytest.mark.parametrize(("side", "most"), [(1, 8), (4096, 3)])
def test_decoded_images_wait_in_a_bounded_room(side, most):
    decoded, reached = [], threading.Event()

    def read(task, content):
        decoded.append(task.number)
        if len(decoded) == most:
            reached.set()
        return photograph(0, side)

    ahead = ReadAhead(read, Fetcher)
    for number in range(20):
        ahead.put(task(number))
    assert reached.wait(GUARD)
    for taken in range(1, 12):
        assert ahead.get(GUARD) is not None
        assert len(decoded) <= most + taken


def test_files_of_a_store_are_fetched_side_by_side():
    together = threading.Barrier(8, timeout=GUARD)

    class Slow(Fetcher):
        def fetch(self, place):
            together.wait()  # until eight threads are here
            return b"0"

    ahead = ReadAhead(lambda task, content: photograph(int(content)), Slow)
    for number in range(8):
        ahead.put(task(number, FilePlace("s3://bucket/0")))
    assert all(ahead.get(GUARD).photograph() for _ in range(8))


def test_images_of_a_table_are_fetched_in_order_by_one():
    notes = []
    ahead = ReadAhead(lambda task, content: photograph(0), lambda: Fetcher(notes))
    for number in range(50):
        ahead.put(task(number, CellPlace("t.parquet", 0, number, "image")))
    for _ in range(50):
        assert ahead.get(GUARD) is not None
    assert [row for _, row in notes] == list(range(50))
    assert len({who for who, _ in notes}) == 1


@pytest.mark.parametrize("decode_ahead", [True, False])
def test_an_image_that_takes_too_long_is_overdue_and_one_that_waits_is_not(decode_ahead):
    now, begun, goes_on = [0.0], threading.Event(), threading.Event()

    def read(task, content):
        begun.set()
        assert goes_on.wait(GUARD)
        return photograph(0)

    ahead = ReadAhead(read, Fetcher, decode_ahead=decode_ahead, clock=lambda: now[0])
    for number in range(3):
        ahead.put(task(number))
    found = []
    taking = threading.Thread(target=lambda: found.extend(ahead.get(GUARD).photograph() for _ in range(3)))
    taking.start()
    assert begun.wait(GUARD)
    assert ahead.overdue(10) is None
    now[0] = 11.0
    late = ahead.overdue(10)
    assert late is not None
    goes_on.set()
    taking.join(GUARD)
    assert len(found) == 3
    assert ahead.overdue(10) is None


def test_a_reader_that_waits_can_be_woken():
    ahead = ReadAhead(lambda task, content: photograph(0), Fetcher)
    ahead.wake()
    assert ahead.get(GUARD) is None
