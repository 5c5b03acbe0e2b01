"""Clients that go away, are slow, or say half of what they announced: the server goes on with the others."""

import base64
import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator

import psutil
import pytest
from tests.common.images import encoded, photograph
from tests.runtime.serve.faults.right_answers import Right, right
from tests.runtime.serve.faults.server import PATIENCE, Server, eventually, serving

from ortcam.bundle.shipped import bundle_path

pytestmark = [pytest.mark.long, pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")]

PHOTOGRAPH = encoded(photograph(), "JPEG", quality=90)
# Exact, for 32 copies of the image: minutes, if nobody stopped it.
SLOW = 150_000  # bytes per second that a slow client takes
LONG = {"method": "scorecam", "augment": 32}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), bundle_path(), "--limit", "passes=1000000") as found:
        yield found


@pytest.fixture(scope="module")
def answers() -> Iterator[Right]:
    with right(bundle_path(), PHOTOGRAPH) as found:
        yield found


def head(path: str, length: int, **headers: str) -> bytes:
    """The head of a POST."""
    named = {"Host": "localhost", "Content-Type": "image/jpeg", "Content-Length": str(length), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode()


def said(connection: socket.socket) -> bytes:
    """Everything that still comes."""
    connection.settimeout(PATIENCE)
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("headers", [{}, {"Accept": "text/event-stream"}], ids=["answer", "stream"])
@pytest.mark.parametrize("goes", ["closed", "reset"])
def test_an_explanation_ends_once_its_client_has_gone(
    headers: dict[str, str], goes: str, server: Server, answers: Right
) -> None:
    gone = server.metric("ortcam_explanations_stopped_total", reason="gone")
    made = server.metric("ortcam_explanations_total", method="scorecam")
    connection = server.raw(head(answers.path(**LONG), len(PHOTOGRAPH), **headers) + PHOTOGRAPH)
    eventually(lambda: server.metric("ortcam_queue_running", lane="masked") == 1, server)
    if goes == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()
    eventually(lambda: server.metric("ortcam_queue_running", lane="masked") == 0, server)
    assert server.metric("ortcam_explanations_stopped_total", reason="gone") == gone + 1
    assert server.metric("ortcam_explanations_total", method="scorecam") == made
    answers.check_server(server)


def test_a_request_in_the_queue_whose_client_has_gone_is_never_begun(server: Server, answers: Right) -> None:
    first = server.raw(head(answers.path(**LONG), len(PHOTOGRAPH)) + PHOTOGRAPH)
    eventually(lambda: server.metric("ortcam_queue_running", lane="masked") == 1, server)
    others = [server.raw(head(answers.path(**LONG), len(PHOTOGRAPH)) + PHOTOGRAPH) for _ in range(5)]
    eventually(lambda: server.metric("ortcam_queue_waiting", lane="masked") == 5, server)
    for other in others:
        other.close()
    eventually(lambda: server.metric("ortcam_queue_waiting", lane="masked") == 0, server)
    assert server.metric("ortcam_queue_running", lane="masked") == 1
    first.close()
    eventually(lambda: server.metric("ortcam_queue_running", lane="masked") == 0, server)
    answers.check_server(server)


def test_slow_clients_hold_up_nobody_and_are_told_in_the_end(server: Server, answers: Right) -> None:
    """Half a head, half a body, and nothing at all, fifty times each."""
    half_a_head = head(answers.path(), len(PHOTOGRAPH))[:40]
    half_a_body = head(answers.path(), len(PHOTOGRAPH)) + PHOTOGRAPH[:100]
    parts = {"head": half_a_head, "body": half_a_body, "nothing": b""}
    slow = {name: [server.raw(part) for _ in range(50)] for name, part in parts.items()}
    answers.check_server(server)
    told = {name: [said(connection) for connection in connections] for name, connections in slow.items()}
    assert all(answer.startswith(b"HTTP/1.1 408 ") and b'"error"' in answer for answer in told["head"] + told["body"])
    assert set(told["nothing"]) == {b""}
    answers.check_server(server)


def test_clients_that_do_not_take_their_answers_are_hung_up_on(server: Server, answers: Right) -> None:
    """Answers of many megabytes are in memory until they are taken. Who takes one slowly gets all of it."""
    instances = [{"b64": base64.b64encode(PHOTOGRAPH).decode()}] * 16
    wanted = {"method": "grad-cam", "top_k": 7, "map": "full"}
    body = json.dumps({"instances": instances, "parameters": wanted}).encode()
    request = head(answers.path(), len(body), **{"Content-Type": "application/json"}) + body
    # Maps of 224 x 224 float32 in base64: far more than the system's buffers hold.
    size = 16 * 7 * 4 * 224 * 224 * 4 // 3
    made = server.metric("ortcam_explanations_total", method="grad-cam") + 3 * 16
    slow, *others = [server.raw(request) for _ in range(3)]
    eventually(lambda: server.metric("ortcam_explanations_total", method="grad-cam") >= made, server)
    taken = bytearray()

    begun = time.monotonic()
    slow.settimeout(PATIENCE)

    def others_are_gone() -> bool:
        while len(taken) < SLOW * (time.monotonic() - begun):
            taken.extend(slow.recv(1 << 16) or pytest.fail("it was hung up on, too"))
        connections = psutil.Process(server.process.pid).net_connections("tcp")
        ports = {connection.raddr.port for connection in connections if connection.raddr}
        return not ports & {other.getsockname()[1] for other in others}

    eventually(others_are_gone, server)
    assert len(taken) < size
    while len(taken) < size:
        taken.extend(slow.recv(1 << 20) or pytest.fail("it was hung up on, too"))
    assert taken.startswith(b"HTTP/1.1 200 OK")
    for connection in (slow, *others):
        connection.close()
    answers.check_server(server)


@pytest.mark.parametrize("end", ["closed", "reset", "half closed"])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_half_a_request_costs_nobody_anything(end: str, share: float, server: Server, answers: Right) -> None:
    whole = head(answers.path(), len(PHOTOGRAPH)) + PHOTOGRAPH
    size_of_head = len(whole) - len(PHOTOGRAPH)
    for size in (size_of_head // 2, size_of_head + int(share * (len(PHOTOGRAPH) - 1))):
        connection = server.raw(whole[:size])
        if end == "half closed":
            connection.shutdown(socket.SHUT_WR)
            answer = said(connection)
            assert not answer or answer.startswith(b"HTTP/1.1 4")
        elif end == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
    answers.check_server(server)
    assert not [line for line in server.lines() if line["event"] == "internal error"]


POST = b"POST /v1/models/shapes:explain HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", {400}),  # TLS
        (b"GET / HTTP/9.9\r\n\r\n", {400, 505}),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", {400, 404, 414, 431}),
        (b"GET /v1/models HTTP/1.1\r\n" + b"A: b\r\n" * 20_000 + b"\r\n", {200, 400, 431}),
        (POST + b"Content-Length: -1\r\n\r\n", {400}),
        (POST + b"Content-Length: 99999999999\r\n\r\n", {413}),
        (
            POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n",
            {400},
        ),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n", {400}),
        (
            POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            {400, 415, 422},
        ),
    ],
    ids=["TLS", "version", "long path", "headers", "negative", "huge", "two lengths", "chunks", "empty"],
)
def test_what_is_no_request_is_refused(data: bytes, statuses: set[int], server: Server, answers: Right) -> None:
    connection = server.raw(data)
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
    answer = said(connection)
    connection.close()
    assert int(answer.split(b" ", 2)[1]) in statuses, answer
    assert b'"error"' in answer or b" 200 OK" in answer
    answers.check_server(server)
    assert not [line for line in server.lines() if line["event"] == "internal error"]


def test_a_body_beyond_the_limit_is_refused_while_it_comes(server: Server, answers: Right) -> None:
    """Chunks announce no length. The server reads the limit and a little, not a gigabyte."""
    start = head(answers.path(), 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    connection = server.raw(start)
    chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    sent = 0
    with contextlib.suppress(ConnectionError):
        for _ in range(1024):
            connection.sendall(chunk)
            sent += 1
    assert sent < 1024
    with contextlib.suppress(ConnectionError):
        answer = said(connection)
        assert not answer or answer.startswith(b"HTTP/1.1 413 ")
    connection.close()
    answers.check_server(server)
