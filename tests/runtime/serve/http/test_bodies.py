"""Bodies are bounded in bytes, in time and all together, and a client that goes away is noticed."""

import asyncio
import gzip
import time
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request
from tests.common.loops import run_async

from ortcam.serve.http import body as bodies
from ortcam.serve.http.body import read_body, watched
from ortcam.serve.http.held import Held
from ortcam.serve.http.refusals import Refusal
from ortcam.serve.scheduling.calls import Call
from ortcam.serve.settings import RequestLimits

GUARD = 60.0  # seconds; only a test that hangs takes so long


def request_of(messages: Iterable[dict[str, Any]], held: Held | None = None, **headers: str) -> Request:
    waiting = iter(messages)

    async def receive() -> dict[str, Any]:
        for message in waiting:
            return message
        await asyncio.Event().wait()
        raise AssertionError

    service = None if held is None else SimpleNamespace(held=held, settings=SimpleNamespace(limits=RequestLimits()))
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        "app": SimpleNamespace(state=SimpleNamespace(service=service)),
        "state": {"request_id": "a", "arrived": time.monotonic()},
    }
    return Request(scope, receive)


def parts(*chunks: bytes) -> list[dict[str, Any]]:
    last = len(chunks) - 1
    return [{"type": "http.request", "body": chunk, "more_body": place < last} for place, chunk in enumerate(chunks)]


def read(request: Request, limit: int = 100) -> bytes:
    async def guarded() -> bytes:
        async with asyncio.timeout(GUARD):
            return await read_body(request, limit)

    return run_async(guarded())


def test_a_body_of_several_parts_is_read_up_to_the_limit() -> None:
    assert read(request_of(parts(b"a" * 60, b"b" * 40))) == b"a" * 60 + b"b" * 40
    with pytest.raises(Refusal) as raised:
        read(request_of(parts(b"a" * 60, b"b" * 41)))
    assert raised.value.status == 413


def test_an_announced_length_beyond_the_limit_is_refused_before_anything_is_read() -> None:
    for length in ("101", "9" * 40):
        with pytest.raises(Refusal) as raised:
            read(request_of([], content_length=length))
        assert raised.value.status == 413
    with pytest.raises(Refusal) as raised:
        read(request_of([], content_length="-1"))
    assert raised.value.status == 400


def test_a_body_whose_client_hangs_up_half_way_is_refused() -> None:
    half = [{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}]
    with pytest.raises(Refusal) as raised:
        read(request_of(half))
    assert raised.value.status == 400
    assert "after 4 bytes" in raised.value.message


def test_a_client_that_stops_sending_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "PAUSE_SECONDS", 0.01)
    with pytest.raises(Refusal) as raised:
        read(request_of([{"type": "http.request", "body": b"a", "more_body": True}]))
    assert raised.value.status == 408
    assert raised.value.headers == {"Connection": "close"}


def test_a_client_that_sends_longer_than_a_request_may_take_is_not_waited_for() -> None:
    request = request_of([{"type": "http.request", "body": b"a", "more_body": True}], Held(50))
    request.scope["state"]["arrived"] -= RequestLimits().seconds  # a minute ago, and it is not half done
    with pytest.raises(Refusal) as raised:
        read(request)
    assert raised.value.status == 408


def test_a_compressed_body_is_unpacked_and_counts_as_what_it_unpacks_to() -> None:
    held = Held(1000)
    assert read(request_of(parts(gzip.compress(bytes(900))), held, content_encoding="gzip"), 1000) == bytes(900)
    assert held.total == 900
    with pytest.raises(Refusal) as raised:
        read(request_of(parts(gzip.compress(bytes(900))), held, content_encoding="gzip"), 1000)
    assert raised.value.status == 429
    for encoding, status in (("br", 415), ("gzip", 413)):
        with pytest.raises(Refusal) as raised:
            read(request_of(parts(gzip.compress(bytes(900))), content_encoding=encoding), 800)
        assert raised.value.status == status
    assert read(request_of(parts(b"plain"), content_encoding="identity")) == b"plain"


def test_all_bodies_together_are_bounded_and_one_alone_is_never_refused() -> None:
    held = Held(50)
    first = request_of(parts(b"a" * 40, b"a" * 40), held)
    assert len(read(first)) == 80
    with pytest.raises(Refusal) as raised:
        read(request_of(parts(b"b"), held))
    assert raised.value.status == 429
    assert raised.value.headers == {"Retry-After": "2"}
    held.release(first.state.call)
    held.release(first.state.call)
    assert held.total == 0
    assert read(request_of(parts(b"b"), held)) == b"b"


def test_an_image_counts_while_it_is_worked_on_and_a_call_with_work_done_goes_on() -> None:
    held, first, second = Held(50), Call("a", 0.0), Call("b", 0.0)
    held.take(first, 40)
    with pytest.raises(Refusal), held.during(second, 20):
        pytest.fail("beyond the bound")
    second.add("run", 0.1)
    with held.during(second, 20):
        assert held.total == 60
    assert held.total == 40
    held.release(second)
    held.release(first)
    assert held.total == 0


def test_a_client_that_goes_away_stops_its_call() -> None:
    async def go() -> Call:
        call = Call("a", 0.0)
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        with call.on_stop(lambda _: loop.call_soon_threadsafe(stopped.set)):
            async with asyncio.timeout(GUARD), watched(request_of([{"type": "http.disconnect"}]), call):
                await stopped.wait()
        return call

    assert run_async(go()).why == "gone"


def test_a_client_that_stays_leaves_its_call_alone() -> None:
    async def go() -> Call:
        call = Call("a", 0.0)
        async with asyncio.timeout(GUARD), watched(request_of([]), call):
            await asyncio.sleep(0)
        return call

    assert run_async(go()).why is None
