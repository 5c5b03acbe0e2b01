"""Every request ends, also one whose client does not read its answer."""

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from tests.common.loops import run_async

from ortcam.serve.http import access
from ortcam.serve.http.access import Access


def test_an_answer_that_nobody_reads_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(access, "SEND_SECONDS", 0.01)
    sent: list[str] = []

    async def answers(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"much"})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message["type"])
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def go() -> None:
        app = SimpleNamespace(state=SimpleNamespace(service=None))
        scope = {"type": "http", "method": "GET", "path": "/", "app": app, "state": {"request_id": "a"}}
        async with asyncio.timeout(60):
            await Access(answers)(scope, answers, send)  # type: ignore[arg-type]

    with caplog.at_level(logging.INFO, "ortcam.serve"):
        run_async(go())
    assert sent == ["http.response.start", "http.response.body"]
    (line,) = [record for record in caplog.records if record.message == "request"]
    assert line.__dict__["fields"]["status"] == 499
