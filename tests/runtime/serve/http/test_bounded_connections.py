"""Connections are bounded in number, in what is neither head nor body, and in requests that come before their turn."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from tests.common.loops import run_async
from uvicorn.server import ServerState

from ortcam.serve.http import connections
from ortcam.serve.http.connections import BoundedConnection

GUARD = 60.0  # seconds; only a test that hangs takes so long
LARGE = 32 << 20  # bytes of an answer; much more than the system's buffers take
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKS = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"


class App:
    """Reads a body, and answers with it and the names of the headers: /wait not before `go`, /large with much more."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.begun = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun += 1
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        if scope["path"] == "/wait":
            await self.go.wait()
        answer = (
            bytes(LARGE) if scope["path"] == "/large" else body + b" " + b",".join(name for name, _ in scope["headers"])
        )
        head = [(b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": answer})


class Listening:
    """A server of bounded connections."""

    def __init__(self, app: App, state: ServerState, port: int) -> None:
        self.app, self.state, self.port = app, state, port
        self._writers: list[asyncio.StreamWriter] = []  # one that is forgotten hangs up

    async def connect(self, data: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection over which these bytes went, and which the server knows of."""
        known = len(self.state.connections)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        writer.write(data)
        while len(self.state.connections) == known and not reader.at_eof() and known < connections.most_connections():
            await asyncio.sleep(0)
        return reader, writer


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[Listening]:
    app, state = App(), ServerState()
    config = uvicorn.Config(app, log_config=None)
    config.load()
    factory = functools.partial(BoundedConnection, config=config, server_state=state, app_state={})
    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
    try:
        yield Listening(app, state, server.sockets[0].getsockname()[1])
    finally:
        app.go.set()
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()


def in_a_loop(test: Callable[[], Awaitable[None]]) -> None:
    async def guarded() -> None:
        async with asyncio.timeout(GUARD):
            await test()

    run_async(guarded())


async def all_of(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server closes the connection, or resets it."""
    answer = b""
    with contextlib.suppress(ConnectionError):
        while part := await reader.read(1 << 16):
            answer += part
    return answer


def test_headers_behind_a_body_are_left_out() -> None:
    async def test() -> None:
        async with listening() as server:
            reader, writer = await server.connect(CHUNKS + b"Authorization: late\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(26) == b"abc host,transfer-encoding"
            writer.write(GET)  # the connection goes on
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")

    in_a_loop(test)


@pytest.mark.parametrize("filler", [b"x-more: " + b"a" * 1000 + b"\r\n", b"a" * 1000], ids=["many", "one"])
def test_headers_behind_a_body_end_somewhere(filler: bytes) -> None:
    async def test() -> None:
        async with listening() as server:
            reader, writer = await server.connect(CHUNKS + filler[:8])
            with contextlib.suppress(ConnectionError):
                while not reader.at_eof() and server.state.connections:
                    writer.write(filler)
                    await writer.drain()
            answer = await all_of(reader)
            assert not answer or answer.startswith(b"HTTP/1.1 431 ")

    in_a_loop(test)


def test_a_large_body_with_small_chunks_is_no_head() -> None:
    async def test() -> None:
        async with listening() as server:
            reader, writer = await server.connect(CHUNKS.removesuffix(b"0\r\n"))
            for _ in range(100):
                writer.write(b"1;" + b"x" * 50 + b"\r\na\r\n" * 1 + b"1\r\nb\r\n" * 1000)
                await writer.drain()
            writer.write(b"0\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")

    in_a_loop(test)


def test_a_head_that_comes_in_one_piece_is_bounded_like_any_other() -> None:
    async def test() -> None:
        async with listening() as server:
            reader, _ = await server.connect(GET[:-2] + b"Accept: " + b"," * 20_000 + b"\r\n\r\n")
            answer = await all_of(reader)
            assert answer.startswith(b"HTTP/1.1 431 ")
            assert answer.count(b"HTTP/1.1") == 1
            assert server.app.begun == 0

    in_a_loop(test)


@pytest.mark.parametrize("wish", [b"h2c", b"websocket"])
def test_a_wish_for_another_protocol_costs_no_body(wish: bytes) -> None:
    """As curl --http2 and the client of Java's library send it, in one piece and byte by byte."""

    async def test() -> None:
        async with listening() as server:
            head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: " + wish
            request = head + b"\r\nHTTP2-Settings: AAMAAABk\r\nContent-Length: 4\r\n\r\nbody"
            reader, writer = await server.connect(request * 2)
            for place in range(len(request)):
                writer.write(request[place : place + 1])
                await writer.drain()
                await asyncio.sleep(0)
            writer.write(GET)
            for told in [b"body host,connection,http2-settings,content-length"] * 3 + [b" host"]:
                assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
                await reader.readuntil(b"\r\n\r\n")
                assert await reader.readexactly(len(told)) == told
            assert server.app.begun == 4

    in_a_loop(test)


def test_there_is_no_way_through_this_server_to_another() -> None:
    async def test() -> None:
        async with listening() as server:
            reader, _ = await server.connect(b"CONNECT other.example:443 HTTP/1.1\r\nHost: a\r\n\r\nmore")
            assert (await all_of(reader)).startswith(b"HTTP/1.1 400 ")
            assert server.app.begun == 0

    in_a_loop(test)


def test_few_requests_may_come_before_their_turn() -> None:
    async def test() -> None:
        async with listening() as server:
            reader, _ = await server.connect(GET * 20)
            for _ in range(20):
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")
                await reader.readuntil(b"host")
            reader, _ = await server.connect(GET.replace(b"/ ", b"/wait ") + GET * 2000)
            assert (await all_of(reader)).startswith(b"HTTP/1.1 400 ")
            assert server.app.begun == 21

    in_a_loop(test)


def test_where_there_are_too_many_connections_the_longest_idle_one_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "most_connections", lambda: 4)

    async def test() -> None:
        async with listening() as server:
            busy, _ = await server.connect(GET.replace(b"/ ", b"/wait "))
            known, writer = await server.connect(GET)
            assert (await known.readline()).startswith(b"HTTP/1.1 200")
            await known.readuntil(b" host")
            begun, _ = await server.connect(b"GET / HT")
            silent, _ = await server.connect()
            for first, told in ((begun, b"HTTP/1.1 503 "), (silent, b"")):
                reader, _ = await server.connect(GET)
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")
                answer = await all_of(first)
                assert answer.startswith(told)
                assert bool(answer) == bool(told)
            writer.write(GET)  # who has asked before is served longest
            assert (await known.readline()).startswith(b"HTTP/1.1 200")
            server.app.go.set()
            assert (await busy.readline()).startswith(b"HTTP/1.1 200")

    in_a_loop(test)


def test_where_all_connections_are_busy_a_new_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "most_connections", lambda: 2)

    async def test() -> None:
        async with listening() as server:
            busy = [(await server.connect(GET.replace(b"/ ", b"/wait ")))[0] for _ in range(2)]
            while server.app.begun < 2:
                await asyncio.sleep(0)
            reader, _ = await server.connect()
            refused = await all_of(reader)
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nretry-after: 1\r\n" in refused
            assert refused.endswith(b'{"error": "the server has as many connections as it may have: try again"}')
            server.app.go.set()
            for reader in busy:
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")

    in_a_loop(test)


def test_answers_that_are_not_taken_are_bounded_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_UNREAD", LARGE + (1 << 20))
    request = GET.replace(b"/ ", b"/large ")

    async def test() -> None:
        async with listening() as server:
            first, _ = await server.connect(request)
            await first.readline()  # and no more
            second, _ = await server.connect(request)
            await second.readuntil(b"\r\n\r\n")
            assert len(await second.readexactly(LARGE)) == LARGE
            assert len(await all_of(first)) < LARGE  # it was hung up on

    in_a_loop(test)


def test_the_bound_leaves_files_for_the_server_itself() -> None:
    resource = pytest.importorskip("resource")
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert 16 <= connections.most_connections() <= max(16, 4096 if files < 0 else files - 256)
