"""Calls a function in a process of its own, and measures the memory and CPU that the call takes.

One warm process has imported everything and read one small picture of each format. It forks a child per call, so that a
call costs milliseconds and its peak of memory is its own. Limits of the system stop a call that goes far beyond.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from tests.common.pace import usual_seconds

__all__ = ["Measured", "Measuring", "read"]

MB: Final = 10**6
_REPOSITORY: Final = Path(__file__).parents[2]
_NET_MEMORY: Final = 3 * 10**9  # beyond what the process has: a breach is measured, and does not take the machine along
_NET_CPU: Final = 100  # seconds
_PATIENCE: Final = 300  # seconds of a clock on the wall
_MAXRSS_UNIT: Final = 1 if sys.platform == "darwin" else 1024


@dataclasses.dataclass(frozen=True)
class Measured:
    """What came of a call.

    Attributes:
        result: what the function returned, as JSON; None where it raised.
        error: name of the exception, or of the signal that ended the process; "" where it returned.
        message: of the exception.
        family: the names of the exception's classes.
        warned: messages of Python's warnings.
        printed: what reached the file descriptors 1 and 2.
        memory: bytes of the peak above what the process had before.
        cpu: seconds of all threads, user and system, as a usual machine takes them (of a killed process: as this one).
    """

    result: Any
    error: str
    message: str
    family: tuple[str, ...]
    warned: tuple[str, ...]
    printed: str
    memory: int
    cpu: float


class Measuring:
    """The warm process; a context."""

    def __enter__(self) -> "Measuring":
        command = [sys.executable, "-m", "tests.hostile.measuring"]
        self._process = subprocess.Popen(
            command, cwd=_REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(_PATIENCE)
        assert self._process.stdout
        self._process.stdout.close()

    def __call__(self, function: str, *arguments: Any, first: Sequence[Any] = ()) -> Measured:
        """Call `module:name` with arguments that JSON can say.

        Args:
            function: to measure.
            arguments: of it.
            first: another function and its arguments; what it returns becomes the first argument, and is not measured.
        """
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([function, arguments, list(first)]) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Measured(**answer | {name: tuple(answer[name]) for name in ("family", "warned")})


def read(source: str | bytes, options: dict[str, Any]) -> list[int]:
    """`read_image` of a file or its bytes, or `read_samples` for a model of so many `bands`: the shape."""
    from ortcam.images.preprocessing import Preprocessing
    from ortcam.images.reading import read_image
    from ortcam.images.samples import read_samples

    bands = options.pop("bands", 0)
    if not bands:
        return list(read_image(source, **options).shape)
    ones = (1.0,) * bands
    model = Preprocessing(8, 8, None, mean=ones, std=ones, channel_order="bands", value_range=(-1e9, 1e9))
    return list(read_samples(source, model, **{"max_pixels": 25_000_000, **options}).shape)


def _function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def _measure(function: str, arguments: list[Any], first: list[Any]) -> dict[str, Any]:
    """Fork, call, and wait for the child."""
    reading, writing = os.pipe()
    printed = os.memfd_create("printed") if hasattr(os, "memfd_create") else os.open(os.devnull, os.O_RDWR)
    child = os.fork()
    if not child:
        os.close(reading)
        _call_and_exit(function, arguments, first, writing, printed)
    os.close(writing)
    answer = b""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if select.select([reading], [], [], 1)[0]:
            part = os.read(reading, 1 << 20)
            if not part:
                break
            answer += part
    else:
        os.kill(child, signal.SIGKILL)
    os.close(reading)
    _, status, usage = os.wait4(child, 0)
    text = os.pread(printed, 1 << 16, 0).decode(errors="replace") if hasattr(os, "memfd_create") else ""
    os.close(printed)
    if answer:
        return {**json.loads(answer), "printed": text}
    ended = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {status}"
    return {
        "result": None,
        "error": ended,
        "message": "",
        "family": [],
        "warned": [],
        "printed": text,
        "memory": usage.ru_maxrss * _MAXRSS_UNIT,
        "cpu": usage.ru_utime + usage.ru_stime,
    }


def _call_and_exit(function: str, arguments: list[Any], first: list[Any], writing: int, printed: int) -> None:
    try:
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        _warm_up()  # maps what a fork does not map
        _stretch_nets()
        if first:
            arguments = [_function(first[0])(*first[1:]), *arguments]
        answer = _call(_function(function), arguments)
        os.write(writing, json.dumps(answer).encode())
    finally:
        os._exit(0)


def _stretch_nets() -> None:
    _limit(resource.RLIMIT_CPU, _NET_CPU)
    _limit(resource.RLIMIT_CORE, 0)
    if sys.platform == "linux":  # anonymous memory of the process so far, and the net
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        _limit(resource.RLIMIT_DATA, pages * os.sysconf("SC_PAGE_SIZE") + _NET_MEMORY)


def _limit(kind: int, most: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _call(function: Callable[..., Any], arguments: list[Any]) -> dict[str, Any]:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    result, error = None, None
    before, cpu_before = _peak_and_cpu()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            result = function(*arguments)
        except BaseException as caught:  # noqa: BLE001 - whatever it is, the test looks at it
            error = caught
    after, cpu_after = _peak_and_cpu()
    return {
        "result": result,
        "error": type(error).__name__ if error else "",
        "message": str(error) if error else "",
        "family": [kind.__name__ for kind in type(error).__mro__] if error else [],
        "warned": [str(warning.message) for warning in warned],
        "memory": after - before,
        "cpu": usual_seconds(cpu_after - cpu_before),
    }


def _peak_and_cpu() -> tuple[int, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_maxrss * _MAXRSS_UNIT, usage.ru_utime + usage.ru_stime


def _warm_up() -> None:
    """Load what the first picture of each format loads."""
    from tests.hostile.images import plain_images

    from ortcam.errors import ImageError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for data in plain_images():
            with contextlib.suppress(ImageError):
                read(data, {})


def main() -> None:
    """Answer calls, a line of JSON each, until the input ends."""
    _warm_up()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_measure(*json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
