"""A job as a stream of server-sent events (`text/event-stream` of the HTML standard).

Events: `state` at first, `map` for each map on the way, and at last `result` or `error`. A slow client gets the newest
map and none of those that it was too slow for, so no stream keeps more than one map per image.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Final

from starlette.responses import StreamingResponse

from ortcam.serve.jobs.job import Job

__all__ = ["MEDIA_TYPE", "events", "stream"]

MEDIA_TYPE: Final = "text/event-stream"

_ALIVE_SECONDS: Final = 10.0  # after so long without an event a comment keeps proxies from closing the connection
_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def stream(job: Job, content: AsyncIterator[bytes] | None = None) -> StreamingResponse:
    """The answer that streams a job.

    Args:
        job: to be streamed.
        content: its events; None: `events`, and the job goes on if its client goes away.
    """
    return StreamingResponse(content or events(job), media_type=MEDIA_TYPE, headers=_HEADERS)


async def events(job: Job) -> AsyncIterator[bytes]:
    """All events of a job from its newest maps to its end."""
    yield _event("state", json.dumps({"id": job.id, "state": job.state}))
    seen = 0
    while True:
        change = job.next_change()
        if job.ended:
            yield _end(job)
            return
        if (preview := job.newer(seen)) is not None:
            seen = preview.number
            yield _event("map", await preview.text(), str(preview.number))
        try:
            async with asyncio.timeout(_ALIVE_SECONDS):
                await change.wait()
        except TimeoutError:
            yield f": {job.state}\n\n".encode()


def _end(job: Job) -> bytes:
    answer = job.answer()
    body = bytes(answer.body)
    media_type = answer.headers.get("content-type", "")
    if answer.status_code >= 400:
        return _event("error", json.dumps({"status": answer.status_code, **json.loads(body)}))
    if media_type.partition(";")[0] != "application/json":  # an image, or tensors in binary
        body = json.dumps({"media_type": media_type, "b64": base64.b64encode(body).decode("ascii")}).encode()
    return _event("result", body.decode())


def _event(kind: str, data: str, id_: str | None = None) -> bytes:
    lines = [
        f"event: {kind}",
        *([] if id_ is None else [f"id: {id_}"]),
        *(f"data: {line}" for line in data.split("\n")),
    ]
    return ("\n".join(lines) + "\n\n").encode()
