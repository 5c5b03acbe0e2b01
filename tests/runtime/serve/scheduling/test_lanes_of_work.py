"""Lanes: quick work never waits behind masked work, queues are bounded, and whoever is let down is told so."""

import asyncio
import contextlib
import functools
import gc
import math
import threading
import weakref
from collections.abc import Awaitable
from typing import Any

import numpy as np
import pytest
from tests.common.loops import run_async
from tests.runtime.serve.scheduling.open_lanes import (
    PATIENCE,
    A,
    Explaining,
    Model,
    begin,
    busy,
    in_a_loop,
    open_lanes,
    until,
)

from ortcam.request import ExplainRequest
from ortcam.serve.http.refusals import Refusal
from ortcam.serve.scheduling.calls import Abandoned, Call
from ortcam.serve.scheduling.lanes import is_quick


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ortcam.serve.scheduling.cores.usable_cores", lambda: 2)


@in_a_loop
async def test_quick_work_does_not_wait_for_masked_work() -> None:
    async with open_lanes() as (lanes, _):
        explaining, task = await begin(lanes)
        call = Call()
        assert await lanes.quick(A, lambda: threading.current_thread().name, call) != "MainThread"
        assert set(call.stages) == {"queue", "run"}
        assert not task.done()
        explaining.go.set()
        assert await task == "whole"


@in_a_loop
async def test_a_prediction_waits_for_no_explanation() -> None:
    async with open_lanes() as (lanes, _):
        request = ExplainRequest.of(method="recipro-cam")
        explaining = Explaining(Call())
        task = asyncio.create_task(lanes.explain(A, request, explaining, explaining.call))
        await asyncio.to_thread(explaining.began.wait, PATIENCE)
        assert await lanes.quick(A, lambda: "predicted", Call()) == "predicted"
        assert await lanes.masked(A, lambda: "masked", Call()) == "masked"
        explaining.go.set()
        assert await task == "whole"


@in_a_loop
async def test_what_the_function_raises_is_raised_where_it_is_awaited() -> None:
    async with open_lanes() as (lanes, _):
        for lane in (lanes.quick, lanes.masked):
            with pytest.raises(ZeroDivisionError):
                await lane(A, lambda: 1 // 0, Call())
            with pytest.raises(RuntimeError, match="StopIteration"):
                await lane(A, lambda: next(iter(())), Call())
            assert await lane(A, lambda: 7, Call()) == 7  # the thread has survived


@in_a_loop
async def test_beyond_its_places_a_queue_refuses_and_says_when_to_try_again() -> None:
    async with open_lanes(queue=3) as (lanes, told):
        first, running = await begin(lanes)
        waiting = [asyncio.create_task(lanes.masked(A, functools.partial(int, n), Call())) for n in range(2)]
        await until(lambda: lanes.busy == 3)
        with pytest.raises(Refusal) as refused:  # the third place is that of the other bundle
            await lanes.masked(A, lambda: 2, Call())
        assert refused.value.status == 429
        assert (refused.value.retry_after or 0) >= 1
        other = asyncio.create_task(lanes.masked(Model("tiny"), lambda: "other", Call()))
        await until(lambda: lanes.busy == 4)
        first.go.set()
        assert list(await asyncio.gather(running, *waiting, other)) == ["whole", 0, 1, "other"]
        assert told.refusals == ["queue"]
        assert told.most_waiting["masked"] == 3


@in_a_loop
async def test_bundles_take_turns() -> None:
    async with open_lanes() as (lanes, _):
        first, running = await begin(lanes)
        order: list[str] = []
        calls: list[Awaitable[None]] = []
        for name in ("a1", "a2", "a3", "b1", "b2", "b3"):
            task = lanes.masked(Model(name[0]), functools.partial(order.append, name), Call())
            calls.append(asyncio.create_task(task))
            await until(functools.partial(busy, lanes, 1 + len(calls)))
        first.go.set()
        await asyncio.gather(running, *calls)
        assert order == ["b1", "b2", "b3", "a1", "a2", "a3"]  # they took no time, and the other bundle has had some


@pytest.mark.usefixtures("two_cores")
def test_as_many_explanations_run_at_once_as_there_are_workers() -> None:
    async def run() -> None:
        async with open_lanes(workers=2) as (lanes, _):
            first, one = await begin(lanes)
            second, two = await begin(lanes)
            third = Explaining(Call())
            three = asyncio.create_task(lanes.masked(A, third, third.call))
            await until(functools.partial(busy, lanes, 3))
            second.go.set()
            assert await two == "whole"
            await asyncio.to_thread(third.began.wait, PATIENCE)
            first.go.set()
            third.go.set()
            assert list(await asyncio.gather(one, three)) == ["whole", "whole"]
            assert third.call.stages["queue"] > 0

    run_async(asyncio.wait_for(run(), PATIENCE))


@in_a_loop
async def test_a_client_that_goes_while_it_waits_leaves_the_queue_at_once() -> None:
    async with open_lanes() as (lanes, told):
        _, running = await begin(lanes)
        call = Call()
        waiting = asyncio.create_task(lanes.masked(A, lambda: pytest.fail("it ran"), call))
        await until(lambda: lanes.busy == 2)
        call.stop("gone")
        with pytest.raises(Abandoned):
            await waiting
        assert lanes.busy == 1
        assert not running.done()
        assert told.stops == ["gone"]
        with pytest.raises(Abandoned):
            await lanes.masked(A, lambda: pytest.fail("it ran"), call)


@in_a_loop
async def test_a_client_that_goes_while_it_runs_frees_the_lane() -> None:
    async with open_lanes() as (lanes, _):
        explaining, task = await begin(lanes)
        explaining.call.stop("cancelled")
        with pytest.raises(Abandoned):
            await task
        assert await lanes.masked(A, lambda: "next", Call()) == "next"


@in_a_loop
async def test_a_task_that_is_cancelled_abandons_its_call() -> None:
    async with open_lanes() as (lanes, _):
        explaining, running = await begin(lanes)
        call = Call()
        waiting = asyncio.create_task(lanes.masked(A, lambda: pytest.fail("it ran"), call))
        await until(lambda: lanes.busy == 2)
        for task in (waiting, running):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert lanes.busy <= 1  # who waited has left the queue, although the other one ran
        assert call.why == explaining.call.why == "gone"
        assert await lanes.masked(A, lambda: "next", Call()) == "next"


@in_a_loop
async def test_a_deadline_that_the_queue_eats_is_refused() -> None:
    async with open_lanes() as (lanes, told):
        await lanes.masked(A, lambda: None, Call())  # from now on calls are expected to take no time
        explaining, running = await begin(lanes)
        for call in (Call(), Call(seconds=0.05)):
            if math.isinf(call.ends):
                call.expect(50)
            with pytest.raises(Refusal) as refused:
                await lanes.masked(A, lambda: pytest.fail("it ran"), call)
            assert refused.value.status == 429
            assert refused.value.retry_after
        assert told.refusals == ["deadline", "deadline"]
        explaining.go.set()
        assert await running == "whole"


@in_a_loop
async def test_a_deadline_that_is_out_of_reach_is_refused_at_once() -> None:
    async with open_lanes() as (lanes, told):
        explaining, running = await begin(lanes)
        call = Call()
        call.expect(100)  # a second of work is ahead, as far as anybody knows
        with pytest.raises(Refusal, match=r"are ahead of this|time was up"):
            await lanes.masked(A, lambda: pytest.fail("it ran"), call)
        assert told.refusals == ["deadline"]
        explaining.go.set()
        assert await running == "whole"


@in_a_loop
async def test_the_next_image_of_a_request_is_not_refused_in_the_middle() -> None:
    async with open_lanes(queue=0) as (lanes, _):
        call = Call()
        assert await lanes.masked(A, lambda: 1, call) == 1
        explaining, running = await begin(lanes)
        with pytest.raises(Refusal):
            await lanes.masked(A, lambda: 2, Call())
        again = asyncio.create_task(lanes.masked(A, lambda: 2, call))
        await until(lambda: lanes.busy == 2)
        explaining.go.set()
        assert list(await asyncio.gather(running, again)) == ["whole", 2]


@pytest.mark.slow
@pytest.mark.parametrize("why", ["returned", "raised", "refused", "abandoned"])
def test_nothing_of_a_call_stays_in_memory_until_garbage_is_collected(why: str) -> None:
    async def run() -> None:
        async with open_lanes() as (lanes, _):
            call, image = Call(), np.zeros(8)
            gone = weakref.ref(image)

            def work(image: np.ndarray = image) -> float:
                if why == "raised":
                    raise ZeroDivisionError
                if why == "abandoned":
                    call.stop("gone")
                call.check()
                return float(image.sum())

            del image
            if why == "refused":
                call.expect(1e-6)
            with contextlib.suppress(ZeroDivisionError, Refusal, Abandoned):
                await lanes.masked(A, work, call)
            del work
            await until(lambda: gone() is None)

    gc.collect()
    gc.disable()
    try:
        run_async(asyncio.wait_for(run(), PATIENCE))
    finally:
        gc.enable()


@pytest.mark.usefixtures("two_cores")
def test_that_there_are_fewer_workers_than_asked_for_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def run(workers: int) -> str:
        caplog.clear()
        async with open_lanes(workers=workers):
            return caplog.records[0].levelname

    with caplog.at_level("INFO", logger="ortcam.serve"):
        assert run_async(run(2)) == "INFO"
        assert run_async(run(3)) == "WARNING"


def test_what_makes_many_passes_is_not_quick() -> None:
    quick: list[dict[str, Any]] = [{"method": "grad-cam"}, {"method": "recipro-cam"}, {"method": "eigen-cam"}]
    slow: list[dict[str, Any]] = [{"method": "scorecam"}, {"method": "eigen-cam", "augment": 10}]
    assert all(is_quick(ExplainRequest.of(**given)) for given in quick)
    assert not any(is_quick(ExplainRequest.of(**given)) for given in slow)
