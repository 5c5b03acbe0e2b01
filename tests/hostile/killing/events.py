"""File events: those that Python tells of, and syncs, of which it tells nothing."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx_ir  # noqa: F401
import onnxruntime  # noqa: F401
import onnxscript  # noqa: F401

HEARD = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink", "os.chmod")


_listeners: list[Callable[[str], None]] = []


@contextlib.contextmanager
def heard_by(listener: Callable[[str], None]) -> Iterator[None]:
    """Have file events told: those of Python, and syncs, of which Python tells nothing."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.clear()


def _tell(event: str) -> None:
    for listener in _listeners:
        listener(event)


def hear(event: str, arguments: tuple[Any, ...]) -> None:
    if not _listeners:
        return
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if not (writes or event in HEARD):
        return
    path = str(arguments[0])
    if not path.startswith("/dev/") and ".cache" not in path:
        _tell(f"{event} {Path(path).name}")


def sync(descriptor: int) -> None:
    _tell("os.fsync")
    _real_sync(descriptor)


_real_sync = os.fsync
