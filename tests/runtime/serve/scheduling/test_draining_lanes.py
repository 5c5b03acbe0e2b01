"""When the server stops, its lanes finish what has arrived, and whoever is let down is told so."""

import asyncio
import threading
from types import SimpleNamespace

import pytest
from tests.common.loops import run_async
from tests.runtime.serve.scheduling.open_lanes import (
    PATIENCE,
    A,
    Explaining,
    begin,
    in_a_loop,
    open_lanes,
    until,
)

from ortcam.serve.http.refusals import Refusal
from ortcam.serve.scheduling.calls import Call


@in_a_loop
async def test_a_drain_lets_explanations_end_and_refuses_new_ones() -> None:
    async with open_lanes() as (lanes, told):
        early = Call()
        explaining, running = await begin(lanes)
        draining = asyncio.create_task(lanes.drain(PATIENCE, elsewhere=lambda: not early.stages))
        await asyncio.sleep(0)
        with pytest.raises(Refusal) as refused:
            await lanes.masked(A, lambda: pytest.fail("it ran"), Call())
        assert (refused.value.status, bool(refused.value.retry_after)) == (503, True)
        arrived_before = asyncio.create_task(lanes.masked(A, lambda: "decoded meanwhile", early))
        explaining.go.set()
        assert list(await asyncio.gather(running, arrived_before)) == ["whole", "decoded meanwhile"]
        assert await draining is True
        assert told.refusals == ["drain"]


@in_a_loop
async def test_when_the_time_to_drain_is_short_the_best_map_is_the_answer() -> None:
    async with open_lanes() as (lanes, told):
        _, running = await begin(lanes)
        waiting = Explaining(Call())
        later = asyncio.create_task(lanes.masked(A, waiting, waiting.call))
        await until(lambda: lanes.busy == 2)
        assert await lanes.drain(2.0) is True
        assert list(await asyncio.gather(running, later)) == ["best so far", "best so far"]
        assert told.stops == ["drain", "drain"]


@pytest.mark.slow
@pytest.mark.whole
@pytest.mark.parametrize("seconds", [0.5, 2, 10, 25, 250])
def test_however_long_a_drain_may_take_an_explanation_is_told_in_time(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is the test's own; it stands still once the explanation has been told."""

    async def run() -> None:
        async with open_lanes() as (lanes, _):
            explaining, running = await begin(lanes)
            now = 0.0

            def monotonic() -> float:
                nonlocal now
                now += 0.01 if explaining.call.why is None else 0
                return now

            monkeypatch.setattr("ortcam.serve.scheduling.lanes.time", SimpleNamespace(monotonic=monotonic))
            monkeypatch.setattr("ortcam.serve.scheduling.lanes.LOOKING_SECONDS", 0)
            assert await lanes.drain(seconds) is True
            assert await running == "best so far"
            assert now > seconds / 3  # and not at once
            monkeypatch.undo()

    run_async(asyncio.wait_for(run(), PATIENCE))


@in_a_loop
async def test_what_does_not_end_in_time_is_told_to_its_caller() -> None:
    async with open_lanes() as (lanes, _):
        stuck = threading.Event()
        began = threading.Event()

        def deaf() -> None:
            began.set()
            stuck.wait(PATIENCE)

        running = asyncio.create_task(lanes.masked(A, deaf, Call()))
        await asyncio.to_thread(began.wait, PATIENCE)
        waiting = asyncio.create_task(lanes.masked(A, lambda: pytest.fail("it ran"), Call()))
        await until(lambda: lanes.busy == 2)
        draining = asyncio.create_task(lanes.drain(0.1))
        with pytest.raises(Refusal) as refused:
            await waiting
        assert refused.value.status == 503
        stuck.set()
        assert await draining is False
        await running
