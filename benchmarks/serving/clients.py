"""Clients of the server: each sends its next request once the last one is answered, over one connection."""

import contextlib
import dataclasses
import http.client
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from benchmarks.serving.requests import Request

__all__ = ["Answer", "Load", "ask", "in_background", "send"]

_TIMEOUT: Final = 300.0  # seconds that a client waits for an answer
_FULL: Final = 429


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came of one request.

    Attributes:
        request: that was sent.
        seconds: from the first attempt to the answer.
        status: of HTTP; 0: the connection failed.
        body: of the answer, or what failed.
        refused: how many times the queue was full before.
    """

    request: Request
    seconds: float
    status: int
    body: bytes
    refused: int


@dataclasses.dataclass(frozen=True)
class Load:
    """All answers of one run.

    Attributes:
        seconds: from the first request to the last answer.
        answers: in the order in which they came.
    """

    seconds: float
    answers: tuple[Answer, ...]

    @property
    def per_second(self) -> float:
        """Answered requests per second."""
        return len(self.answers) / self.seconds


def send(port: int, requests: Sequence[Request], clients: int, *, each: Callable[[int], None] | None = None) -> Load:
    """Send requests by several clients, who take them in order, and wait for all answers.

    A client that is told that the queue is full asks again after the time that the server names.

    Args:
        port: of 127.0.0.1.
        requests: that are sent.
        clients: how many there are.
        each: told how many are answered, by the client that has the answer.
    """
    contents = {request.photograph: request.photograph.read_bytes() for request in requests}
    waiting = iter(requests)
    answers: list[Answer] = []
    lock = threading.Lock()

    def client() -> None:
        with contextlib.closing(_connection(port)) as connection:
            while True:
                with lock:
                    request = next(waiting, None)
                if request is None:
                    return
                answer = _patiently(connection, request, contents[request.photograph])
                with lock:
                    answers.append(answer)
                    count = len(answers)
                if each is not None:
                    each(count)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Load(time.perf_counter() - started, tuple(answers))


def ask(connection: http.client.HTTPConnection, path: str, body: bytes | None) -> tuple[int, bytes, float]:
    """One request: status, body, and the seconds to come back where the server names them. Status 0: it failed."""
    try:
        headers = {} if body is None else {"Content-Type": "image/jpeg"}
        connection.request("GET" if body is None else "POST", path, body, headers)
        response = connection.getresponse()
        return response.status, response.read(), float(response.headers.get("Retry-After", 0.1))
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return 0, repr(error).encode(), 0.1


@contextlib.contextmanager
def in_background(port: int, request: Request) -> Iterator[Callable[[], list[float]]]:
    """Send one request again and again while the block runs; gives a function that returns the seconds of each so far.

    Raises:
        SystemExit: at the end of the block, if an answer was no 200.
    """
    taken: list[float] = []
    failed: list[bytes] = []
    end = threading.Event()
    content = request.photograph.read_bytes()

    def client() -> None:
        with contextlib.closing(_connection(port)) as connection:
            while not end.is_set() and not failed:
                clock = time.perf_counter()
                status, body, _ = ask(connection, request.path, content)
                taken.append(time.perf_counter() - clock)
                if status != 200:
                    failed.append(body)

    thread = threading.Thread(target=client)
    thread.start()
    try:
        yield lambda: list(taken)
    finally:
        end.set()
        thread.join()
    if failed:
        raise SystemExit(f"{request.key}: {failed[0]!r}")


def _connection(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)


def _patiently(connection: http.client.HTTPConnection, request: Request, content: bytes) -> Answer:
    refused = 0
    started = time.perf_counter()
    while True:
        status, body, pause = ask(connection, request.path, content)
        if status != _FULL:
            return Answer(request, time.perf_counter() - started, status, body, refused)
        refused += 1
        time.sleep(pause)
