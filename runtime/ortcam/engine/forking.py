"""After `fork`: locks that a child process finds free, and what of ONNX Runtime it must not touch.

A child has only the thread that forked. Locks that another thread held stay locked in it forever, and the threads of
ONNX Runtime's sessions do not exist there: a run may wait for them without end, and so may closing a session.
"""

import ctypes
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

__all__ = ["ForkLock", "after_fork", "keep_forever"]


class ForkLock:
    """A lock that is free in a child process, whoever held it in the parent."""

    __slots__ = ("__weakref__", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def renew(self) -> None:
        """Put a free lock in its place."""
        self._lock = threading.Lock()


_locks: "weakref.WeakSet[ForkLock]" = weakref.WeakSet()


def keep_forever(item: Any) -> None:
    """Let nobody destroy an object in this process, not even the end of the interpreter."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(item))


def after_fork(function: Callable[[], None]) -> Callable[[], None]:
    """Have a function called in every child process that `fork` makes."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)
    return function


@after_fork
def _renew_locks() -> None:
    for lock in list(_locks):
        lock.renew()
