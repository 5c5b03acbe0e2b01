"""Every request from its arrival to its answer: counted, logged, refused while the server ends, never unanswered."""

import asyncio
import contextlib
import logging
import time
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ortcam.serve.http.kinds import kind_of
from ortcam.serve.http.logs import log
from ortcam.serve.http.refusals import Refusal
from ortcam.serve.http.security import answer_refusal, path_of
from ortcam.serve.scheduling.calls import Call
from ortcam.serve.service import Service

__all__ = ["SEND_SECONDS", "Access"]

SEND_SECONDS: Final = 60.0  # that a client may take to read a part of its answer

_WORK: Final = ("predict", "explain")
_GONE: Final = 499  # the client went away before its answer
_DRAIN_SECONDS: Final = 5.0  # after which another server is likely to have taken over


class _NotReadError(Exception):
    """The client does not read its answer."""


class Access:
    """Counts and logs every request, and answers 500 where something unforeseen goes wrong.

    While the server ends, new predictions and explanations get 503; what arrived before is answered.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        service: Service | None = getattr(scope["app"].state, "service", None)
        path = path_of(scope)
        kind, model = kind_of(path, () if service is None else service.models.names)
        if kind in _WORK and scope["method"] != "POST":
            kind = "other"
        state = scope.setdefault("state", {})
        started = state["arrived"] = time.monotonic()
        status = 0

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await send(message)
            except TimeoutError:
                raise _NotReadError from None

        with contextlib.ExitStack() as stack:
            if service is not None:
                stack.enter_context(service.metrics.running(kind))
                if kind in _WORK:
                    stack.enter_context(service.attending())
            try:
                if service is not None and service.draining and kind in _WORK:
                    service.metrics.refused("drain")
                    raise Refusal(503, "the server is about to end: try again", retry_after=_DRAIN_SECONDS)  # noqa: TRY301
                await self._app(scope, receive, send_and_note)
            except Refusal as refusal:
                await answer_refusal(refusal, send_and_note, {"Connection": "close"})
            except _NotReadError:
                status = _GONE  # the server closes the connection, since the answer is not complete
            except Exception as error:  # noqa: BLE001 - the server lives
                request_id = state.get("request_id", "")
                log("internal error", level=logging.ERROR, error=error, request=request_id, path=path)
                if status == 0:
                    await answer_refusal(Refusal(500, f"internal error, request id {request_id}"), send_and_note)
            finally:
                _finish(scope, service, (kind, model), status or _GONE, time.monotonic() - started)


def _finish(scope: Scope, service: Service | None, about: tuple[str, str], status: int, seconds: float) -> None:
    """Count a request, write its line, and give back what it holds."""
    state: dict[str, Any] = scope["state"]
    kind, model = about
    call: Call | None = state.get("call")
    stages = {} if call is None else {name: round(spent, 4) for name, spent in call.stages.items()}
    if call is not None and call.why == "gone":
        status = _GONE
    if service is not None:
        service.metrics.finished(kind, model, status, seconds, stages)
        if call is not None and not state.get("goes_on", False):
            service.held.release(call)
    more: dict[str, Any] = state.get("log", {})
    if call is not None and call.notes:
        more = more | {"notes": call.notes}
    log(
        "request",
        level=logging.DEBUG if kind == "health" else logging.INFO,
        request=state.get("request_id", ""),
        client=(scope.get("client") or [None])[0],
        method=scope["method"],
        path=scope["path"][:1000],
        kind=kind,
        model=model[:100],
        status=status,
        seconds=round(seconds, 4),
        stages=stages,
        **more,
    )
