"""Lanes for tests, and explanations that run in them until they are let go or stopped."""

import asyncio
import dataclasses
import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from tests.common.loops import run_async
from tests.conftest import TINY_BUNDLE

from ortcam.serve.scheduling.calls import Call
from ortcam.serve.scheduling.lanes import Lanes
from ortcam.serve.settings import RequestLimits, Settings

__all__ = ["PATIENCE", "A", "Explaining", "Model", "Told", "begin", "busy", "in_a_loop", "open_lanes", "until"]

PATIENCE = 30  # seconds; only a test that fails waits so long


@dataclasses.dataclass(frozen=True)
class Model:
    name: str


A = Model("a")


class Told:
    """Metrics that note what they are told."""

    def __init__(self) -> None:
        self.most_waiting: dict[str, int] = {}
        self.refusals: list[str] = []
        self.stops: list[str] = []

    def queued(self, lane: str, waiting: int, _: int) -> None:
        self.most_waiting[lane] = max(waiting, self.most_waiting.get(lane, 0))

    def refused(self, reason: str) -> None:
        self.refusals.append(reason)

    def stopped(self, reason: str) -> None:
        self.stops.append(reason)


class Explaining:
    """A masked explanation that runs until it is let go or stopped, as one that makes very many passes."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.began, self.go = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.began.set()
        while not self.go.wait(0.005):
            self.call.progress(1, 10)
            if self.call.stopping():
                return "best so far"
        return "whole"


def in_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    @functools.wraps(test)
    def run() -> None:
        run_async(asyncio.wait_for(test(), PATIENCE))

    del run.__wrapped__  # pytest would see a coroutine
    return run


@asynccontextmanager
async def open_lanes(workers: int = 1, **limits: Any) -> AsyncIterator[tuple[Lanes, Told]]:
    told = Told()
    settings = Settings.of([TINY_BUNDLE], workers=workers, limits=RequestLimits(**limits))
    lanes = Lanes(settings, told)
    await lanes.start()
    try:
        yield lanes, told
    finally:
        await lanes.drain(0.2)


async def begin(lanes: Lanes, model: Model = A, call: Call | None = None) -> tuple[Explaining, "asyncio.Task[str]"]:
    """Start a masked explanation and wait until a thread runs it."""
    explaining = Explaining(call or Call())
    task = asyncio.create_task(lanes.masked(model, explaining, explaining.call))
    await asyncio.to_thread(explaining.began.wait, PATIENCE)
    return explaining, task


def busy(lanes: Lanes, count: int) -> bool:
    return lanes.busy == count


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)
