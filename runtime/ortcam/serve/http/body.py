"""The body of a request, read with bounds, and a watch over the client that waits for the answer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import ClientDisconnect, Request

from ortcam.serve.http.encodings import unpacked
from ortcam.serve.http.refusals import Refusal
from ortcam.serve.scheduling.calls import Call
from ortcam.serve.service import Service, call_of

__all__ = ["PAUSE_SECONDS", "read_body", "watched"]

PAUSE_SECONDS: Final = 20.0  # the longest that a client may send nothing
_LEAST_BYTES_PER_SECOND: Final = 4096  # beyond the first pause: what a client has to keep up


async def read_body(request: Request, limit: int) -> bytes:
    """Read the body of a request, unpack it if it is compressed, and read and unpack no more than a limit.

    What it takes counts as memory that the request holds.

    Args:
        request: whose body has not been read.
        limit: bytes, of what comes and of what it unpacks to.

    Raises:
        Refusal: 413 beyond the limit; 400 where the client hung up half-way, announced no length that is a number or
            sent what is not compressed as it says; 408 where it sends too slowly, or longer than a request may take;
            415 for another encoding; 429 where all requests together hold too much memory.
    """
    announced = request.headers.get("content-length")
    if announced is not None:
        if not (announced.isascii() and announced.isdigit()):
            raise Refusal(400, "Content-Length: accepted is a number of bytes")
        if len(announced) > 18 or int(announced) > limit:
            raise _too_large(limit)
    body = await _received(request, limit)
    encoding = request.headers.get("content-encoding")
    if encoding is None:
        return body
    content = await asyncio.to_thread(unpacked, body, encoding, limit)
    service: Service | None = getattr(request.app.state, "service", None)
    if service is not None:
        service.held.take(call_of(request), max(len(content) - len(body), 0))
    return content


async def _received(request: Request, limit: int) -> bytes:
    """The body as it comes."""
    service: Service | None = getattr(request.app.state, "service", None)
    body, counted = bytearray(), 0
    stream = request.stream()
    clock = asyncio.get_running_loop().time
    started = clock()
    try:
        while True:
            allowed = started + PAUSE_SECONDS + len(body) / _LEAST_BYTES_PER_SECOND - clock()
            left = PAUSE_SECONDS if service is None else call_of(request).seconds_to_wait()
            async with asyncio.timeout(max(0.0, min(PAUSE_SECONDS, allowed, left))):
                body += await anext(stream)
            if len(body) > limit:
                raise _too_large(limit)
            if service is not None and len(body) > counted:
                service.held.take(call_of(request), len(body) - counted)
                counted = len(body)
    except StopAsyncIteration:
        return bytes(body)
    except TimeoutError:
        raise Refusal(408, f"the body comes too slowly: {len(body)} bytes so far") from None
    except ClientDisconnect:
        raise Refusal(400, f"the body ends after {len(body)} bytes, before the length that was announced") from None


@contextlib.asynccontextmanager
async def watched(request: Request, call: Call) -> AsyncIterator[None]:
    """Stop a call as soon as its client has gone: the work for it ends at the next run of a graph.

    Args:
        request: whose body has been read.
        call: of this request.
    """

    async def watch() -> None:
        while True:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                call.stop("gone")
                return

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _too_large(limit: int) -> Refusal:
    return Refusal(413, f"the body is larger than {limit} bytes")
