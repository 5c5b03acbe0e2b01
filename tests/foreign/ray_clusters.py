"""A Ray cluster of processes on this machine, as a cluster on several machines is started: a head and a worker."""

import contextlib
import os
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
from tests.runtime.serve.faults.server import PATIENCE

__all__ = ["Cluster", "cluster", "free_ports", "ray_environment"]


@dataclass(frozen=True)
class Cluster:
    """A head without CPUs and a worker with two.

    Attributes:
        address: for `--ray-address`.
        dashboard: for `ray job submit`.
        environment: of commands that use it.
    """

    address: str
    dashboard: str
    environment: Mapping[str, str]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens to. Ray takes no 0."""
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in taken:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in taken]


def ray_environment(bin_: Path, folder: Path, given: Mapping[str, str]) -> dict[str, str]:
    """Variables of Ray's processes.

    Args:
        bin_: where `ray` and `ortcam` are.
        folder: for Ray's files; its name is short, because it is part of the names of sockets.
        given: further variables.
    """
    return {
        **os.environ,
        **given,
        "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "disabled",
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        # On a machine that is busy, Ray gives up after half a minute.
        "RAY_gcs_server_request_timeout_seconds": str(int(PATIENCE)),
        "RAY_raylet_start_wait_time_s": str(int(PATIENCE)),
    }


@contextlib.contextmanager
def cluster(bin_: Path, given: Mapping[str, str]) -> Iterator[Cluster]:
    """Start both, and end them.

    Args:
        bin_: where `ray` and `ortcam` are.
        given: further variables of all processes.
    """
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as name:
        environment = ray_environment(bin_, Path(name), given)
        port, dashboard, client = free_ports(3)
        found = Cluster(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", environment)
        head = ["--head", f"--port={port}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
        with contextlib.ExitStack() as stack:
            stack.enter_context(_node(environment, *head, "--num-cpus=0"))
            _until(lambda: _answers(f"{found.dashboard}/api/version"))
            stack.enter_context(_node(environment, f"--address={found.address}", "--num-cpus=2"))
            yield found


@contextlib.contextmanager
def _node(environment: Mapping[str, str], *arguments: str) -> Iterator[None]:
    command = ["ray", "start", *arguments, "--disable-usage-stats", "--block"]
    where = environment["PATH"].partition(os.pathsep)[0]
    with psutil.Popen([f"{where}/{command[0]}", *command[1:]], env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            children = process.children(recursive=True)
            process.terminate()
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(PATIENCE)
            for each in (process, *children):
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 2 * PATIENCE
    while not what():
        assert time.monotonic() < end, "Ray does not start"
        time.sleep(0.2)
