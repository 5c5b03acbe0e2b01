"""Items are listed ahead, in order; what only the driver can fetch comes with its bytes."""

import math
import threading

import pytest

from ortcam.batch.items import FilePlace, Item, NoPlace
from ortcam.batch.local.supply import Supply
from ortcam.errors import ImageError, OrtcamError

GUARD = 30.0  # seconds


class Fetcher:
    def fetch(self, place):
        if "gone" in place.url:
            raise ImageError("it is gone")
        return b"bytes"

    def close(self):
        pass


class Told:
    """Counts what it is told, and can be waited for."""

    def __init__(self):
        self.changed = threading.Condition()

    def __call__(self):
        with self.changed:
            self.changed.notify_all()

    def all_of(self, supply):
        found = []
        with self.changed:
            while not supply.exhausted:
                tasks = supply.take(7)
                found += tasks
                if not tasks and not supply.exhausted:
                    self.changed.wait(GUARD)
        return found


def items(*urls):
    return iter([Item(url, url, FilePlace(url)) for url in urls])


def test_all_items_come_in_order_and_are_numbered():
    told = Told()
    urls = [str(number) for number in range(1000)]
    supply = Supply(items(*urls), Fetcher(), told)
    found = told.all_of(supply)
    assert [task.item.id for task in found] == urls
    assert [task.number for task in found] == list(range(1, 1001))
    assert supply.listed == 1000
    assert supply.left == 0
    assert supply.error is None
    supply.close()


def test_how_many_are_left_is_known_at_the_end_of_the_list():
    told = Told()
    more = threading.Event()

    def listing():
        yield from items("a", "b")
        more.wait(GUARD)
        yield from items("c")

    with told.changed:
        supply = Supply(listing(), Fetcher(), told)
        assert supply.left == math.inf
        more.set()
        told.changed.wait_for(lambda: supply.left < math.inf, GUARD)
        assert supply.left == 3
    assert len(supply.take(2)) == 2
    assert supply.left == 1
    supply.close()


def test_images_in_the_memory_of_the_driver_come_with_their_bytes():
    told = Told()
    supply = Supply(items("memory://a", "b", "memory://gone"), Fetcher(), told)
    first, second, third = told.all_of(supply)
    assert (first.content, second.content, third.content) == (b"bytes", None, None)
    assert third.item.place == NoPlace("it is gone")
    supply.close()


def test_a_listing_that_fails_says_so_after_what_it_found():
    def failing():
        yield from items("a", "b")
        raise OrtcamError("the listing broke")

    told = Told()
    supply = Supply(failing(), Fetcher(), told)
    assert [task.item.id for task in told.all_of(supply)] == ["a", "b"]
    with pytest.raises(OrtcamError, match="the listing broke"):
        raise supply.error
    supply.close()


def test_a_supply_that_is_closed_lists_no_further():
    listed = []

    def endless():
        while True:
            listed.append(len(listed))
            yield Item(str(len(listed)), "", FilePlace("x"))

    supply = Supply(endless(), Fetcher(), lambda: None)
    supply.close()
    count = len(listed)
    assert supply.take(3) or count == 0
    assert len(listed) == count
