"""`ortcam serve` as a process of its own, and clients that are not nice to it."""

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import psutil
from prometheus_client.parser import text_string_to_metric_families

__all__ = ["PATIENCE", "Answer", "Client", "Server", "eventually", "serving"]

# Seconds: a guard against waiting for ever, far beyond what anything takes.
PATIENCE: Final = 120.0


@dataclass(frozen=True)
class Answer:
    """What the server said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The sentence of a refusal."""
        return str(self.json()["error"])


class Client:
    """One connection, which is opened anew where the server closed it."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def ask(self, path: str, body: bytes | None = None, *, method: str | None = None, **headers: str) -> Answer:
        """Ask once; underscores in the names of headers are hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(method or ("GET" if body is None else "POST"), path, body, named)
        response = self._connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


@dataclass(frozen=True)
class Server:
    """A server that is ready."""

    process: subprocess.Popen[str]
    port: int
    log: Path

    def client(self) -> Client:
        """A connection."""
        return Client(self.port)

    def ask(self, path: str, body: bytes | None = None, **options: Any) -> Answer:
        """Ask once, over a connection of its own."""
        with contextlib.closing(self.client()) as client:
            return client.ask(path, body, **options)

    def raw(self, data: bytes) -> socket.socket:
        """A connection over which these bytes went."""
        connection = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        connection.sendall(data)
        return connection

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        families = text_string_to_metric_families(self.ask("/metrics").body.decode())
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    def decoders(self) -> list[int]:
        """Numbers of the processes that decode images."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
                if any("decoding.worker" in part for part in child.cmdline()):
                    found.append(child.pid)
        return found

    def memory(self) -> int:
        """Bytes that are this process's own."""
        return int(psutil.Process(self.process.pid).memory_full_info().uss)

    def lines(self) -> list[dict[str, Any]]:
        """The lines of its log that are whole."""
        text = self.log.read_text("utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in text if line.startswith("{") and line.endswith("\n")]

    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None


@contextlib.contextmanager
def serving(folder: Path, *arguments: object, errors: IO[str] | int | None = None) -> Iterator[Server]:
    """Run `ortcam serve` with these arguments until the block ends; it is ready when the block begins."""
    log = folder / "serve.log"
    with log.open("a") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "ortcam", "serve", *map(str, arguments), "--port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file if errors is None else errors,
            text=True,
            env=os.environ | {"ORTCAM_CACHE": "off"},
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert found is not None, line + log.read_text("utf-8")
        server = Server(process, int(found[1]), log)
        eventually(lambda: server.ask("/v2/health/ready").status == 200, server)
        yield server
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def eventually(happens: Any, server: Server) -> None:
    """Wait for something that the server does by itself; fails if it ends, or after a very long time."""
    end = time.monotonic() + PATIENCE
    while not happens():
        assert server.alive(), server.log.read_text("utf-8")
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)
