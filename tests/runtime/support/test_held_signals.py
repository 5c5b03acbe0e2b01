"""A signal first stops the work, then takes its course; a second one takes it at once."""

import signal
import threading
from collections.abc import Iterator

import pytest

from ortcam.support.held_signals import orderly


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def number(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """A signal whose handler raises an exception."""

    def handler(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(request.param, handler)
    yield request.param
    signal.signal(request.param, before)


def test_a_signal_stops_the_work_and_is_raised_behind_it(number: signal.Signals) -> None:
    stop, written = threading.Event(), []

    def work() -> None:
        with orderly(stop):
            signal.raise_signal(number)
            assert stop.is_set()
            written.append("the open part")

    handler = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        work()
    assert written
    assert signal.getsignal(number) is handler


def test_a_second_signal_ends_the_work_at_once(number: signal.Signals) -> None:
    stop, written = threading.Event(), []

    def work() -> None:
        with orderly(stop):
            signal.raise_signal(number)
            signal.raise_signal(number)
            written.append("never")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert not written


def test_an_error_of_the_work_is_raised_and_handlers_are_put_back(number: signal.Signals) -> None:
    handler = signal.getsignal(number)
    with pytest.raises(ZeroDivisionError), orderly(threading.Event()):
        raise ZeroDivisionError
    assert signal.getsignal(number) is handler


def test_a_signal_that_python_does_not_handle_is_left_alone() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with orderly(threading.Event()):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_another_thread_signals_are_left_alone() -> None:
    found: list[object] = []

    def work() -> None:
        with orderly(threading.Event()):
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]
