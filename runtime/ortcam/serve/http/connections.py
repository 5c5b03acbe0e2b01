"""Connections of uvicorn with bounds that it lacks: on their number, heads, and what nobody reads."""

import asyncio
import json
import sys
from collections.abc import Iterable
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["BACKLOG", "MOST_UNREAD", "BoundedConnection", "most_connections"]

BACKLOG: Final = 128  # connections that are taken at once, before any of them is looked at
MOST_UNREAD: Final = 512 << 20  # bytes of answers that clients have not taken yet, all together

_HEAD_BYTES: Final = 16_384  # some headers take long to parse
_HEAD_SECONDS: Final = 30.0
_IGNORED_BYTES: Final = 512 << 20  # of a body that was refused; usual clients read the refusal once all is sent
# How often a client is looked at that does not take its answer. The system's buffers open in steps of half a megabyte.
_READING_SECONDS: Final = 60.0
_LEAST_READ: Final = 80_000  # bytes of it that a client takes meanwhile, or it is hung up on
_AHEAD: Final = 32  # requests that a client may send before the one that runs is answered
_MOST: Final = 4096  # connections
_LEAST: Final = 16
_RESERVED: Final = 256  # files that are no connections: those of models, pipes, logs, and what is taken at once
_REASONS: Final = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}
_FULL: Final = "the server has as many connections as it may have: try again"


class _RefusedError(Exception):
    """The head of a request is too large, or too many requests came before their turn."""


class BoundedConnection(HttpToolsProtocol):
    """Closes a connection whose next head is late or too large, or whose answer is not taken.

    Where there are as many connections as the process may have, one that asks for nothing makes room for a new one.

    Attributes:
        since: when it was made or had its last answer, of the loop's clock.
        paused: when its client was last seen to be behind with its answer.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head."""
        super().connection_made(transport)
        self._head_bytes = self._ignored_bytes = 0
        self._waiting: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None
        self._unread = 0
        self.paused = 0.0
        self._in_head, self._is_bare, self._upgrades = True, False, False
        self.since = self.loop.time()
        self._await_head()
        if len(self.connections) > most_connections():
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop_waiting()
        self._stop_looking()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Look from now on whether the client takes its answer, which is in memory until then."""
        super().pause_writing()
        self._stop_looking()
        self._unread = self.transport.get_write_buffer_size()
        self._reading = self.loop.call_later(_READING_SECONDS, self._look)
        self.paused = self.loop.time()
        others: Iterable[Any] = self.connections
        unread = {other: other.transport.get_write_buffer_size() for other in others}
        if sum(unread.values()) > MOST_UNREAD:
            behind = [other for other, size in unread.items() if size and other is not self] or [self]
            min(behind, key=lambda other: float(other.paused)).transport.abort()

    def resume_writing(self) -> None:
        """The client has taken most of its answer."""
        self._stop_looking()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Take what came, if the head, or what is neither head nor body, does not become too large by it."""
        self._is_bare = True
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self.send_400_response("this is no request of HTTP/1.1")
        if (self._in_head or self._is_bare) and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES:
                self._refuse_head()

    def on_message_begin(self) -> None:
        """Wait for the end of this head."""
        super().on_message_begin()
        self._in_head, self._is_bare = True, False
        self._head_bytes = self._ignored_bytes = 0
        self._await_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. Those behind a body of chunks are left out: they might say what the head did not."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Wait no longer."""
        self._upgrades = self.parser.should_upgrade()
        if self._upgrades:
            return
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > _HEAD_BYTES:
            self._refuse_head()
            raise _RefusedError
        self._in_head = self._is_bare = False
        self._head_bytes = 0
        self._stop_waiting()
        super().on_headers_complete()
        if len(self.pipeline) > _AHEAD:
            raise _RefusedError

    def on_message_complete(self) -> None:
        """The request is whole."""
        if not self._upgrades:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self.since = self.loop.time()
        super().on_response_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body; read no more than a while for a request that has its answer."""
        self._is_bare, self._head_bytes = False, 0
        super().on_body(body)
        if self.cycle.response_complete:
            self._ignored_bytes += len(body)
            if self._ignored_bytes > _IGNORED_BYTES:
                self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, in the form of every other refusal."""
        self._refuse(400, msg.rstrip(".").lower())

    def _parse(self, data: bytes) -> None:
        """Parse what came. A wish for another protocol is not heard, as HTTP lets servers do, but its body is.

        curl --http2 and clients in Java wish for HTTP/2 with each first request. The parser takes what follows such a
        head for the other protocol. So the head is parsed again, without the wish.

        Raises:
            HttpParserError: it is no HTTP.
        """
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as wish:
            method, version = self.parser.get_method(), self.parser.get_http_version().encode()
            if method == b"CONNECT":
                raise httptools.HttpParserError from None
            lines = [method + b" " + self.url + b" HTTP/" + version]
            lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
            self._parse(b"\r\n".join([*lines, b"", b""]) + data[wish.args[0] :])

    @property
    def is_idle(self) -> bool:
        """Whether no request of this connection is worked on, and no body is on its way."""
        ended = self.transport.is_closing() and not self.transport.get_write_buffer_size()  # as good as closed
        return not ended and (self.cycle is None or self.cycle.response_complete) and not self.pipeline

    def give_room(self) -> None:
        """Close it, so that another one can be had."""
        if self.transport.get_write_buffer_size():  # closing waits until all is written
            self.transport.abort()
        elif self._head_bytes:
            self._refuse(503, _FULL)
        else:
            self.transport.close()

    def _make_room(self) -> None:
        """Close the connection that has been idle for the longest time, first of those that never asked for anything.

        Where none is idle this one is refused.
        """
        others: Iterable[Any] = self.connections
        idle = [other for other in others if other is not self and other.is_idle]
        if idle:
            min(idle, key=lambda other: (other.cycle is not None, other.since)).give_room()
        else:
            self._refuse(503, _FULL)

    def _await_head(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(_HEAD_SECONDS, self._give_up)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _look(self) -> None:
        before, self._unread = self._unread, self.transport.get_write_buffer_size()
        if before - self._unread < _LEAST_READ:
            self.transport.abort()
        else:
            self._reading = self.loop.call_later(_READING_SECONDS, self._look)

    def _stop_looking(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _give_up(self) -> None:
        if self._head_bytes:
            self._refuse(408, f"the head of a request takes longer than {_HEAD_SECONDS:g} seconds")
        else:
            self.transport.close()

    def _refuse_head(self) -> None:
        self._refuse(431, f"the head of a request is larger than {_HEAD_BYTES} bytes")

    def _refuse(self, status: int, message: str) -> None:
        if self.transport.is_closing():
            return
        running: Any = self.cycle
        if running is None or running.response_complete or not running.response_started:
            body = json.dumps({"error": message}).encode()
            again = "retry-after: 1\r\n" if status == 503 else ""
            head = f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: application/json\r\n{again}"
            self.transport.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        self.transport.close()


def most_connections() -> int:
    """Connections that the process may have: as many as it may open files, less those that it needs for others."""
    if sys.platform == "win32":
        return _MOST
    import resource  # noqa: PLC0415 - not on Windows

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if files == resource.RLIM_INFINITY else min(max(files - _RESERVED, _LEAST), _MOST)
