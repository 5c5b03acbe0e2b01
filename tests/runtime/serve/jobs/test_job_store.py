"""Jobs: what is kept, streamed, cancelled and forgotten, without a network."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from tests.common.loops import run_async

from ortcam.errors import ImageError
from ortcam.serve.http.held import Held
from ortcam.serve.http.refusals import Refusal
from ortcam.serve.jobs.asking import answered
from ortcam.serve.jobs.events import events
from ortcam.serve.jobs.store import Jobs, Show
from ortcam.serve.monitoring import Metrics
from ortcam.serve.scheduling.calls import Abandoned, Call
from ortcam.serve.settings import RequestLimits

GUARD = 60.0  # seconds; a test that waits longer has hung


def _jobs(**limits: Any) -> Jobs:
    return Jobs(RequestLimits(**limits), Metrics(("tiny",)))


def _run(test: Callable[[], Awaitable[None]]) -> None:
    async def guarded() -> None:
        async with asyncio.timeout(GUARD):
            await test()

    run_async(guarded())


async def _answers(_: Show | None) -> Response:
    return JSONResponse({"explanations": [1]})


async def _read(stream: AsyncIterator[bytes]) -> tuple[str, dict[str, object]]:
    lines = (await anext(stream)).decode().strip().split("\n")
    found = dict(line.split(": ", 1) for line in lines)
    return found["event"], json.loads(found["data"])


def test_the_answer_of_a_job_is_the_protocols_own() -> None:
    async def test() -> None:
        async def work(_: Show | None) -> Response:
            return Response(b"\x89PNG", 200, {"X-Of": "the protocol"}, "image/png")

        jobs = _jobs()
        job = jobs.submit("tiny", Call(), work)
        assert job.state == "waiting"
        assert await job.over()
        assert "result" not in json.loads(job.record("/jobs/1"))
        assert jobs.unseen == 1  # the picture has not been fetched by that
        answer = job.answer()
        assert jobs.unseen == 0
        assert (job.state, answer.body, answer.headers["content-type"]) == (
            "done",
            b"\x89PNG",
            "image/png",
        )
        assert (answer.headers["x-of"], answer.headers["content-length"]) == ("the protocol", "4")
        assert "result" not in json.loads(job.record("/jobs/1"))

    _run(test)


def test_json_answers_are_in_the_record() -> None:
    async def test() -> None:
        job = _jobs().submit("tiny", Call(), _answers)
        await job.over()
        record = json.loads(job.record("/jobs/1"))
        assert record["result"] == {"explanations": [1]}
        assert record["result_url"] == "/jobs/1/result"

    _run(test)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (Refusal(429, "the queue is full", retry_after=3), 429, "the queue is full"),
        (ImageError("no image"), 422, "no image"),
        (RuntimeError("/home/somebody/secret"), 500, "internal error, request id 12ab"),
    ],
)
def test_what_goes_wrong_becomes_the_answer(error: Exception, status: int, message: str) -> None:
    async def test() -> None:
        async def work(_: Show | None) -> Response:
            raise error

        job = _jobs().submit("tiny", Call("12ab"), work)
        await job.over()
        record = json.loads(job.record(""))
        assert (record["state"], record["status"], record["error"]) == ("failed", status, message)
        assert json.loads(job.answer().body) == {"error": message}
        assert job.answer().headers.get("retry-after") == ("3" if status == 429 else None)

    _run(test)


def test_jobs_of_a_bundle_take_turns_and_are_admitted_then() -> None:
    async def test() -> None:
        jobs, go_on, admitted = _jobs(queue=8), asyncio.Event(), []

        async def work(_: Show | None) -> Response:
            admitted.append(len(admitted))
            await go_on.wait()
            return JSONResponse({})

        calls = [Call() for _ in range(5)]
        released: list[int] = []
        every = [
            jobs.submit("tiny", call, work, ended=lambda place=place: released.append(place))
            for place, call in enumerate(calls)
        ]
        other = jobs.submit("other", Call(), _answers)
        await other.over()
        assert [call.admitted for call in calls] == [True, True, False, False, False]
        assert len(admitted) == 2
        every[2].cancel()
        assert released == []
        while not released:
            await asyncio.sleep(0)
        assert released == [2]  # although it is not its turn yet
        go_on.set()
        await jobs.close()
        assert len(admitted) == 4  # the one that was cancelled never began
        assert sorted(released) == [0, 1, 2, 3, 4]
        assert [job.state for job in every] == ["done", "done", "cancelled", "done", "done"]

    _run(test)


def test_a_job_whose_turn_does_not_come_in_time_is_refused_in_time() -> None:
    async def test() -> None:
        jobs, go_on = _jobs(queue=4), asyncio.Event()

        async def work(_: Show | None) -> Response:
            await go_on.wait()
            return JSONResponse({})

        first, second = jobs.submit("tiny", Call(), work), jobs.submit("tiny", Call(seconds=0.05), work)
        await second.over()
        assert (second.state, second.answer().status_code, first.state) == ("failed", 429, "waiting")
        go_on.set()
        third = jobs.submit("tiny", Call(), work)
        await third.over()
        assert (first.state, third.state) == ("done", "done")  # the place was not lost

    _run(test)


def test_a_stream_has_the_newest_map_and_then_the_answer() -> None:
    async def test() -> None:
        shown, go_on, read = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def work(show: Show | None) -> Response:
            assert show is not None
            for number in range(3):
                show(0, lambda number=number: {"passes": number})
            shown.set()
            await read.wait()
            show(1, lambda: {"passes": 9})
            await go_on.wait()
            return JSONResponse({"explanations": [1, 2]})

        job = _jobs().submit("tiny", Call(), work)
        await shown.wait()
        stream = events(job)
        assert (await _read(stream))[0] == "state"
        assert await _read(stream) == ("map", {"instance": 0, "passes": 2})  # those before it were never made
        read.set()
        assert await _read(stream) == ("map", {"instance": 1, "passes": 9})
        go_on.set()
        assert await _read(stream) == ("result", {"explanations": [1, 2]})
        assert [event async for event in stream] == []
        late = [event async for event in events(job)]
        assert [event.split(b"\n")[0] for event in late] == [b"event: state", b"event: result"]

    _run(test)


def test_maps_come_from_any_thread_and_are_made_for_listeners_alone() -> None:
    async def test() -> None:
        made: list[int] = []
        go_on = asyncio.Event()

        def make(number: int) -> dict[str, object]:
            made.append(number)
            return {"passes": number}

        async def work(show: Show | None) -> Response:
            assert show is not None
            thread = threading.Thread(target=lambda: [show(0, lambda n=n: make(n)) for n in range(100)])
            thread.start()
            await asyncio.to_thread(thread.join)
            await go_on.wait()
            return JSONResponse({})

        job = _jobs().submit("tiny", Call(), work)
        while not job.newer(99):
            await job.next_change().wait()
        assert made == []
        first, second = events(job), events(job)
        for stream in (first, second):
            await _read(stream)
            assert await _read(stream) == ("map", {"instance": 0, "passes": 99})
        assert made == [99]  # once for both
        go_on.set()
        await job.over()

    _run(test)


def test_a_cancelled_job_stops_its_call_and_says_so() -> None:
    async def test() -> None:
        jobs, call, never = _jobs(), Call(), asyncio.Event()

        async def work(_: Show | None) -> Response:
            await never.wait()
            return JSONResponse({})

        job = jobs.submit("tiny", call, work)
        stream = events(job)
        await _read(stream)
        jobs.cancel(job)
        assert (call.why, call.abandoned, job.state) == ("cancelled", True, "cancelled")
        assert await _read(stream) == ("error", {"status": 410, "error": "the job was cancelled"})
        never.set()
        await jobs.close()
        assert (job.state, job.answer().status_code) == ("cancelled", 410)

    _run(test)


def test_an_ended_job_is_not_cancelled() -> None:
    async def test() -> None:
        job = _jobs().submit("tiny", call := Call(), _answers)
        await job.over()
        job.cancel()
        assert (job.state, call.why) == ("done", None)

    _run(test)


def test_seen_answers_make_room_and_unseen_ones_are_kept() -> None:
    async def test() -> None:
        jobs = _jobs(jobs=2)
        first, second = (jobs.submit("tiny", Call(), _answers) for _ in range(2))
        await first.over()
        await second.over()
        with pytest.raises(Refusal, match=r"2 jobs are kept, 0 of them not ended") as refused:
            jobs.submit("tiny", Call(), _answers)
        assert (refused.value.status, refused.value.retry_after) == (429, 600)
        second.answer()
        third = jobs.submit("tiny", Call(), _answers)
        assert jobs.get(first.id) is first
        assert jobs.get(third.id) is third
        with pytest.raises(Refusal, match="there is no such job"):
            jobs.get(second.id)

    _run(test)


def test_jobs_that_run_are_bounded() -> None:
    async def test() -> None:
        jobs, go_on = _jobs(jobs=1), asyncio.Event()

        async def work(_: Show | None) -> Response:
            await go_on.wait()
            return JSONResponse({})

        job = jobs.submit("tiny", Call(), work)
        with pytest.raises(Refusal, match="1 jobs are kept, 1 of them not ended"):
            jobs.submit("tiny", Call(), work)
        jobs.cancel(job)
        go_on.set()
        jobs.submit("tiny", Call(), work)
        await jobs.close()

    _run(test)


def test_answers_are_bounded_in_bytes() -> None:
    async def test() -> None:
        jobs = _jobs()

        async def work(_: Show | None) -> Response:
            return Response(bytes(129 << 20))

        for _ in range(2):
            await jobs.submit("tiny", Call(), work).over()
        with pytest.raises(Refusal, match="256 MiB of answers"):
            jobs.submit("tiny", Call(), _answers)

    _run(test)


def test_a_job_is_forgotten_after_its_time() -> None:
    async def test() -> None:
        jobs = _jobs(job_seconds=0.01)
        job = jobs.submit("tiny", Call(), _answers)
        await job.over()
        while kept(jobs, job.id):  # the guard of all tests ends this one
            await asyncio.sleep(0.001)
        with pytest.raises(Refusal, match=r"0\.01 seconds after its end"):
            jobs.get(job.id)

    def kept(jobs: Jobs, id_: str) -> bool:
        try:
            jobs.get(id_)
        except Refusal:
            return False
        return True

    _run(test)


def test_ids_do_not_repeat_or_count() -> None:
    async def test() -> None:
        jobs = _jobs()
        found = {jobs.submit("tiny", Call(), _answers).id for _ in range(20)}
        assert len(found) == 20
        assert {len(id_) for id_ in found} == {24}
        await jobs.close()

    _run(test)


def test_a_client_that_goes_while_it_waits_for_its_job_leaves_nothing_behind() -> None:
    """Also if its job waits for its turn: the one before it has not ended."""

    async def test() -> None:
        jobs, held, go_on = _jobs(queue=1), Held(1000), asyncio.Event()

        async def work(_: Show | None) -> Response:
            await go_on.wait()
            return JSONResponse({})

        async def receive() -> dict[str, str]:
            return {"type": "http.disconnect"}

        first, call = jobs.submit("tiny", Call(), work), Call()
        held.take(call, 100)
        scope = {
            "type": "http",
            "headers": [(b"prefer", b"respond-async, wait=60")],
            "app": SimpleNamespace(state=SimpleNamespace(service=SimpleNamespace(jobs=jobs, held=held))),
        }
        with pytest.raises(Abandoned):
            await answered(Request(scope, receive), "tiny", call, work)
        while held.total or jobs.running > 1:  # it does not wait for the first one
            await asyncio.sleep(0)
        assert not first.ended
        go_on.set()
        assert await first.over()
        await jobs.close()
        assert jobs.unseen == 1  # the first one

    _run(test)
