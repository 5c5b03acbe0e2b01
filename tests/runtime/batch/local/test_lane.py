"""A lane gives a process as much as it needs, and finds the image that ends its processes."""

import math
from collections import deque

import pytest

from ortcam.batch.items import FilePlace, Item
from ortcam.batch.local.lane import Lane
from ortcam.batch.local.messages import Task

TASKS = [Task(number, Item(str(number), "", FilePlace(""))) for number in range(64)]


class Process:
    def __init__(self):
        self.sent = []

    def send(self, message):
        self.sent += [task.number for task in message.tasks]


class Timed:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Timed()


@pytest.fixture
def lane(clock):
    made = Lane(None, lambda *_: Process(), clock=clock)
    made.start(None)
    made.ready()
    return made


def again(lane):
    """The process ended, and another one is ready; what it has then been given."""
    assert lane.ended(deque())
    culprit = lane.culprit(2)
    lane.start(None)
    lane.ready()
    return culprit, lane.process.sent


def test_nothing_is_wanted_before_the_process_is_ready():
    lane = Lane(None, lambda *_: Process())
    assert lane.wanted() == 0
    lane.start(None)
    assert lane.wanted() == 0
    lane.ready()
    assert lane.wanted() == 2


def test_silence_counts_while_there_is_something_to_do(lane):
    assert lane.silent(5) == 0
    lane.give(TASKS[:1])
    assert (lane.silent(5), lane.silent(2)) == (5, 7)
    lane.hear()
    assert lane.silent(1) == 1
    lane.take_back(TASKS[0].number)
    assert lane.silent(5) == 0
    starting = Lane(None, lambda *_: Process())
    assert starting.silent(5) == 0
    starting.start(None)
    assert starting.silent(5) == 5


def test_slow_images_come_one_ahead_and_quick_ones_many(lane, clock):
    lane.give(TASKS[:2])
    assert lane.wanted() == 0
    clock.now += 30.0
    lane.take_back(0)
    assert lane.wanted() == 1
    quick = 0
    for number in range(1, 64):
        lane.give([task for task in TASKS if task.number == number + 1])
        clock.now += 0.001
        lane.take_back(number)
        quick = max(quick, lane.wanted())
    assert quick == 32


def test_few_are_wanted_when_few_are_left(lane, clock):
    lane.give(TASKS[:2])
    clock.now += 0.01
    lane.take_back(0)
    clock.now += 0.01
    lane.take_back(1)
    assert [lane.wanted(share) for share in (math.inf, 64, 63, 20, 10, 1)] == [32, 32, 32, 10, 5, 5]
    lane.give(TASKS[2:4])
    assert [lane.wanted(share) for share in (20, 1)] == [8, 3]
    lane.give(TASKS[4:5])
    assert lane.wanted(1) == 0  # its last 0.05 seconds of work


def test_an_image_is_taken_back_once(lane):
    lane.give(TASKS[:2])
    assert lane.take_back(1) is TASKS[1]
    assert lane.take_back(1) is None


def test_the_images_of_a_process_that_ended_are_tried_alone(lane):
    lane.give(TASKS[:3])
    culprit, sent = again(lane)
    assert culprit is None
    assert sent == [0]
    assert lane.wanted() == 0
    for number in range(3):
        lane.take_back(number)
    assert lane.process.sent == [0, 1, 2]
    assert lane.idle
    assert lane.wanted() > 0


def test_the_image_that_ends_its_process_twice_when_alone_is_the_culprit(lane):
    lane.give(TASKS[:3])
    again(lane)
    lane.take_back(0)
    assert again(lane) == (None, [1])
    culprit, sent = again(lane)
    assert culprit is TASKS[1]
    assert sent == [2]
    lane.take_back(2)
    assert lane.idle


def test_deaths_of_one_image_do_not_count_for_the_next(lane):
    lane.give(TASKS[:2])
    again(lane)
    again(lane)
    lane.take_back(0)
    assert again(lane) == (None, [1])


def test_a_process_that_leaves_gives_its_images_to_all(lane):
    lane.give(TASKS[:2])
    lane.leaving = True
    left = deque()
    assert lane.ended(left)
    assert list(left) == TASKS[:2]
    assert lane.idle


def test_starts_that_fail_in_a_row_are_counted():
    lane = Lane(None, lambda *_: Process())
    for count in (1, 2):
        lane.start(None)
        assert not lane.ended(deque())
        assert lane.failed_starts == count
    lane.start(None)
    lane.ready()
    assert lane.failed_starts == 0
