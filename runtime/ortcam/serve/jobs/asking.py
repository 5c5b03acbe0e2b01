"""How a request for an explanation wants its answer: at once, later (202 and a job), or as a stream of maps.

The header `Prefer` is that of RFC 7240: `respond-async`, and `wait=SECONDS` for how long to wait before that.
"""

import dataclasses
import json
import re
from collections.abc import AsyncIterator
from typing import Final, Self

from starlette.requests import Request
from starlette.responses import Response

from ortcam.serve.http.body import watched
from ortcam.serve.jobs.events import MEDIA_TYPE, events, stream
from ortcam.serve.jobs.job import Job
from ortcam.serve.jobs.store import Show, Work
from ortcam.serve.scheduling.calls import Call
from ortcam.serve.service import service_of

__all__ = ["Preferences", "Show", "Work", "address_of", "answered", "wants_stream"]

_WAIT: Final = re.compile(r"[0-9]{1,9}")
_REFUSED: Final = re.compile(r"q=0(\.0*)?")  # "not this one", in the header Accept
_LONGEST_WAIT: Final = 60.0  # seconds
_RETRY_SECONDS: Final = 1
_HOLD_SECONDS: Final = 1.0  # for which a stream does not begin, so that an early refusal has its own status


@dataclasses.dataclass(frozen=True)
class Preferences:
    """What the header `Prefer` says; what is not understood is left out, as the RFC asks.

    Attributes:
        asynchronous: whether `respond-async` is there.
        wait: seconds that the client would wait; 0 where it says nothing.
    """

    asynchronous: bool = False
    wait: float = 0.0

    @classmethod
    def of(cls, request: Request) -> Self:
        """Read the header of a request, which may be there several times.

        Example:
            >>> request = Request({"type": "http", "headers": [(b"prefer", b"respond-async, wait=5")]})
            >>> Preferences.of(request)
            Preferences(asynchronous=True, wait=5.0)
        """
        given: dict[str, str] = {}
        for item in ",".join(request.headers.getlist("prefer")).split(","):
            name, _, value = item.partition(";")[0].partition("=")
            given.setdefault(name.strip().lower(), value.strip().strip('"'))
        wait = given.get("wait", "")
        seconds = min(float(wait), _LONGEST_WAIT) if _WAIT.fullmatch(wait) else 0.0
        return cls("respond-async" in given, seconds)


def wants_stream(request: Request) -> bool:
    """Whether the header `Accept` names `text/event-stream`, and not with a quality of 0."""
    for item in ",".join(request.headers.getlist("accept")).split(","):
        kind, *parameters = (part.strip().lower() for part in item.split(";"))
        if kind == MEDIA_TYPE:
            return not any(_REFUSED.fullmatch(parameter) for parameter in parameters)
    return False


def address_of(request: Request, job: Job) -> str:
    """The path of a job, below the path at which the application is mounted."""
    return f"{request.scope.get('root_path', '')}/jobs/{job.id}"


async def answered(request: Request, model: str, call: Call, work: Work) -> Response:
    """Answer a request for an explanation as it wants to be answered.

    1. With `Prefer: respond-async`: 202, and a job at the path in `Location`. With `wait=SECONDS` beside it the answer
       itself, if it is ready by then.
    2. With `Accept: text/event-stream`: a stream of maps, with the answer as its last event. What is refused at once
       has its own status.
    3. Else the answer. In 2 and 3 a client that goes away stops its explanation.

    Args:
        request: whose body has been read.
        model: name of the bundle.
        call: of the request.
        work: makes the answer; gets what takes maps on the way, or None where nobody wants them. It must not use the
            request.

    Raises:
        Refusal: as `work`, or 429, there are too many jobs.
        Abandoned: the client has gone.
    """
    service = service_of(request)
    preferences = Preferences.of(request)
    if preferences.asynchronous:
        job = service.jobs.submit(model, call, work, ended=lambda: service.held.release(call))
        request.state.goes_on = True
        if preferences.wait:
            async with watched(request, call):
                ended = await job.over(preferences.wait)
            if ended or call.abandoned:  # nobody knows of it any more
                service.jobs.forget(job)
                call.check()
                return job.answer()
        return _accepted(request, job)
    if wants_stream(request):
        job = service.jobs.run(model, call, work)
        async with watched(request, call):
            await job.change(_HOLD_SECONDS)
        if job.state == "failed":
            return job.answer()
        return stream(job, _watched_events(request, job))
    async with watched(request, call):
        return await work(None)


def _accepted(request: Request, job: Job) -> Response:
    address = address_of(request, job)
    body = {"id": job.id, "state": job.state, "model": job.model, "url": address}
    headers = {"Location": address, "Preference-Applied": "respond-async", "Retry-After": str(_RETRY_SECONDS)}
    return Response(json.dumps(body), 202, headers, "application/json")


async def _watched_events(request: Request, job: Job) -> AsyncIterator[bytes]:
    """The events of a job that is stopped when its client goes away."""
    try:
        async with watched(request, job.call):
            async for event in events(job):
                yield event
    finally:
        if not job.ended:
            job.call.stop("gone")
