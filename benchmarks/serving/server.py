"""The server that is measured, and the process that makes the same calls without one."""

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]
from benchmarks.common.results import ROOT
from benchmarks.serving.requests import Request

__all__ = ["Sequential", "Server", "sequential", "serving"]

_PATIENCE: Final = 120.0  # seconds until a server is ready, or ends


class Server:
    """`ortcam serve` in a process of its own.

    Attributes:
        port: of 127.0.0.1.
    """

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self._process = process
        self.port = port

    def memory(self) -> int:
        """Bytes that are resident, its decoders' included."""
        return int(_total(self._process.pid, lambda process: process.memory_info().rss))

    def processor_seconds(self) -> float:
        """Seconds of all cores since its start, its decoders' included."""
        return _processor_seconds(self._process.pid)

    def wait_until_ready(self) -> None:
        """Return once it takes requests.

        Raises:
            SystemExit: it ended, or is not ready in time.
        """
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end and self._process.poll() is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE)
            with contextlib.closing(connection), contextlib.suppress(OSError):
                connection.request("GET", "/v2/health/ready")
                if connection.getresponse().status == 200:
                    return
            time.sleep(0.05)
        raise SystemExit("the server is not ready")


@contextlib.contextmanager
def serving(bundles: Mapping[str, Path], folder: Path, *arguments: str) -> Iterator[Server]:
    """A server that is ready; it ends with the block.

    Args:
        bundles: name -> folder.
        folder: for its log and its cache.
        *arguments: more of `ortcam serve`.
    """
    command = [sys.executable, "-m", "ortcam", "serve", *map(str, bundles.values())]
    for name in bundles:
        command += ["--name", name]
    command += ["--port", "0", "--log-file", str(folder / "server.log"), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_environment(folder))
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://[^ ]+:(\d+)", line)
        if found is None:
            raise SystemExit(f"the server said {line!r}")
        # What else it says is read, so that it never waits for a reader.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        server = Server(process, int(found[1]))
        server.wait_until_ready()
        yield server
    finally:
        process.terminate()
        try:
            process.wait(_PATIENCE)
        finally:
            process.kill()
            process.wait()


class Sequential:
    """benchmarks.serving.sequential in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def processor_seconds(self) -> float:
        """Seconds of all cores since its start."""
        return _processor_seconds(self._process.pid)

    def run(self, requests: Sequence[Request]) -> dict[str, Any]:
        """Make the calls, one after the other: seconds of all, and of each."""
        return self._ask({"requests": [_record(request) for request in requests]})

    def write_answers(self, requests: Sequence[Request], file: Path) -> None:
        """Write the right answers into a file of arrays, by the requests' keys."""
        self._ask({"requests": [_record(request) for request in requests], "file": str(file)})

    def _ask(self, task: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the process that calls the library ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def sequential(bundles: Mapping[str, Path], folder: Path) -> Iterator[Sequential]:
    """A process with the bundles loaded; it ends with the block."""
    command = [sys.executable, "-m", "benchmarks.serving.sequential"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment(folder)
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({name: str(path) for name, path in bundles.items()}) + "\n")
        process.stdin.flush()
        if not process.stdout.readline():
            raise SystemExit("the process that calls the library did not start")
        yield Sequential(process)
    finally:
        process.kill()
        process.communicate()


def _processor_seconds(pid: int) -> float:
    """Seconds of all cores that a process and its children have had."""
    return _total(pid, lambda process: sum(process.cpu_times()[:2]))


def _total(pid: int, value: Callable[[Any], float]) -> float:
    parent = psutil.Process(pid)
    total = 0.0
    for process in (parent, *parent.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += value(process)
    return total


def _record(request: Request) -> dict[str, str]:
    return {"model": request.model, "kind": request.kind, "photograph": str(request.photograph)}


def _environment(folder: Path) -> dict[str, str]:
    """What is remembered of this machine is found anew for every benchmark, and each process finds it for itself."""
    return {**os.environ, "TQDM_DISABLE": "1", "ORTCAM_CACHE": str(folder / "ortcam-cache.json")}
