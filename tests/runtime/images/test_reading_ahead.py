"""Reading ahead passes on whatever is raised, never waits for ever, and leaves no thread behind."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import ortcam
from ortcam.errors import ImageError, OrtcamError
from ortcam.images.photograph import read_ahead

RAISED = [
    KeyboardInterrupt("stop"),
    SystemExit(3),
    GeneratorExit("gone"),
    MemoryError("full"),
    asyncio.CancelledError("cancelled"),
    ValueError("wrong"),
    ImageError("no image"),
]
OWN = {"ortcam-read"}
PATIENCE = 30.0  # seconds; what is waited for takes milliseconds


def running() -> int:
    return sum(thread.name in OWN for thread in threading.enumerate())


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    if running():  # of a generator in a circle with its traceback
        gc.collect()
    wait_until(lambda: running() == 0)


def raising(error: BaseException, after: int = 2) -> Iterator[int]:
    yield from range(after)
    raise error


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_what_the_iterable_raises_comes_after_the_items_before_it(error: BaseException) -> None:
    seen = []

    def consume() -> None:
        for item, read in read_ahead(raising(error), str):
            seen.append((item, read()))

    with pytest.raises(type(error)) as raised:
        consume()
    assert raised.value is error
    assert seen == [(0, "0"), (1, "1")]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_what_reading_raises_comes_with_its_item(error: BaseException) -> None:
    def read(item: int) -> int:
        if item == 1:
            raise error
        return item

    found = list(read_ahead(range(3), read))
    assert [item for item, _ in found] == [0, 1, 2]
    assert found[0][1]() == 0
    assert found[2][1]() == 2
    with pytest.raises(type(error)) as raised:
        found[1][1]()
    assert raised.value is error


@pytest.mark.sample(every=3)
@pytest.mark.whole
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("source", ["images", "on_error", "progress", "consumer"])
def test_explain_many_passes_every_exception_on(source: str, error: BaseException, tiny_bundle: Path) -> None:
    picture = np.zeros((40, 50, 3), np.uint8)
    picture[10:20, 10:30] = 200

    def images() -> Iterator[object]:
        yield picture
        yield b"no image"
        if source == "images":
            raise error
        yield picture

    def fail(*_: object) -> None:
        raise error

    explainer = ortcam.load(tiny_bundle)
    explanations = explainer.explain_many(
        images(),
        on_error=fail if source == "on_error" else lambda *_: None,
        progress=fail if source == "progress" else None,
    )

    def consume() -> None:
        for _ in explanations:
            if source == "consumer":
                raise error

    with pytest.raises(type(error)) as raised:
        consume()
    assert raised.value is error
    if source == "consumer":
        explanations.close()  # the traceback still holds it
    wait_until(lambda: running() == 0)
    assert explainer.explain(picture).maps.shape[0] == 1, "the explainer goes on"


@pytest.mark.slow
def test_a_thread_ends_when_the_generator_is_dropped_or_closed() -> None:
    for end in ("drop", "close"):
        ahead = read_ahead(iter(range(10**9)), str)
        next(ahead)
        assert running() == 1
        if end == "close":
            ahead.close()
        else:
            del ahead
            gc.collect()
        wait_until(lambda: running() == 0)


def test_closing_does_not_wait_for_an_iterable_that_blocks() -> None:
    released = threading.Event()

    def blocking() -> Iterator[int]:
        yield 0
        released.wait(PATIENCE)
        yield 1

    ahead = read_ahead(blocking(), str)
    next(ahead)
    ahead.close()
    assert not released.is_set()
    released.set()


def test_a_thread_that_dies_is_told_instead_of_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "run", lambda self: None)
    with pytest.raises(OrtcamError, match="reads images ahead is gone"):
        next(read_ahead([1], str))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_is_told_that_it_has_no_such_thread() -> None:
    blocked = threading.Event()

    def blocking() -> Iterator[int]:
        yield 0
        blocked.wait(PATIENCE)

    ahead = read_ahead(blocking(), str)
    next(ahead)
    child = os.fork()
    if child == 0:
        try:
            next(ahead)
        except OrtcamError:
            os._exit(17)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    blocked.set()
    assert os.waitstatus_to_exitcode(status) == 17


def test_without_a_thread_items_are_read_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert [(item, read()) for item, read in read_ahead(range(3), str)] == [(0, "0"), (1, "1"), (2, "2")]


SCRIPT = """
import signal, sys, time
from ortcam.images.photograph import read_ahead
{0}
ahead = read_ahead(items(), read)
next(ahead)
print("ready", flush=True)
{1}
"""
BLOCKS = "def items():\n    yield 0\n    time.sleep(60)\n    yield 1\ndef read(item): return item"
# Inflating releases the interpreter's lock for long, as decoders do.
DECODES = """
import cv2, numpy
encoded = cv2.imencode(".png", numpy.random.default_rng(0).integers(0, 255, (3000, 3000, 3), numpy.uint8))[1]
def items():
    while True: yield 0
def read(item): return cv2.imdecode(encoded, 1)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_an_interrupt_ends_the_wait_for_an_iterable_that_blocks() -> None:
    # A handler of its own: a process in the background may have interrupts ignored.
    leaves = f"{BLOCKS}\nsignal.signal(signal.SIGINT, lambda *_: sys.exit(7))"
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(leaves, "next(ahead)")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 7


@pytest.mark.slow
@pytest.mark.parametrize("what", [BLOCKS, DECODES], ids=["iterable blocks", "decoding"])
def test_a_process_ends_well_while_something_is_read_ahead(what: str) -> None:
    for pause in (0.0, 0.03):
        code = SCRIPT.format(what, f"time.sleep({pause})")
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
