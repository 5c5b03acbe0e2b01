"""Locks on files and folders. Other processes and threads wait. A lock ends with its process, even by a kill."""

import contextlib
import errno
import importlib
import os
import time
from pathlib import Path
from types import ModuleType
from typing import Final

__all__ = ["Lock", "lock", "lock_descriptor"]

fcntl: ModuleType | None = importlib.import_module("fcntl") if os.name == "posix" else None
msvcrt: ModuleType | None = importlib.import_module("msvcrt") if os.name == "nt" else None

_WAIT: Final = 0.005
_MOST_TRIES: Final = 100  # at folders that are replaced one after another, or whose file system numbers them anew
# Windows locks bytes of files alone: those of this one stand for the folder that it lies in.
_LOCK_FILE: Final = ".ortcam-lock"


class Lock:
    """A lock that lasts until `release`, or until the process ends."""

    def __init__(self, descriptor: int, own_file: Path | None = None) -> None:
        self._descriptor = descriptor
        self._own_file = own_file

    def release(self) -> None:
        """Release the lock."""
        try:
            if fcntl is not None:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # for a process forked meanwhile, too
            elif msvcrt is not None:
                os.lseek(self._descriptor, 0, os.SEEK_SET)
                msvcrt.locking(self._descriptor, msvcrt.LK_UNLCK, 1)
        finally:
            os.close(self._descriptor)
        if self._own_file is not None:
            with contextlib.suppress(OSError):  # another process has it open, and removes it later
                self._own_file.unlink()


def lock(path: Path, *, patience: float = 0.0, shared: bool = False) -> Lock | None:
    """Lock a folder, or a file on POSIX systems.

    On a network file system a lock on a folder separates only the processes of one machine.

    Args:
        path: exists. If another folder takes its place while this process waits, the new one is locked.
        patience: seconds to wait for the process that holds it.
        shared: whether others that also ask for a shared lock may have it at the same time.

    Returns:
        The lock; None if the system or the file system has no such locks (Windows has no shared ones), or if the folder
        can be written to but not read.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the path does not exist, or cannot be opened.
    """
    end = time.monotonic() + patience
    if fcntl is None:
        return None if shared else _lock_by_file(path, end)
    for _ in range(_MOST_TRIES):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except PermissionError:
            return None
        try:
            locked = _flock(fcntl, descriptor, end, shared=shared)
            is_that = locked and os.path.samestat(os.fstat(descriptor), path.stat())
        except BaseException:  # an interrupt, too
            os.close(descriptor)
            raise
        if is_that:
            return Lock(descriptor)
        os.close(descriptor)
        if not locked:
            return None
    return None


def lock_descriptor(descriptor: int) -> bool:
    """Lock an open file as long as it is open; false if the system or the file system has no such locks.

    Raises:
        BlockingIOError: another process holds it.
    """
    return fcntl is not None and _flock(fcntl, descriptor, 0.0)


def _flock(fcntl: ModuleType, descriptor: int, end: float, *, shared: bool = False) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise
            time.sleep(_WAIT)
        except OSError:  # a file system without locks
            return False
        else:
            return True


def _lock_by_file(folder: Path, end: float) -> Lock | None:
    """Windows: lock a file in the folder. It cannot be removed while a process has it open."""
    if msvcrt is None or not folder.is_dir():
        return None
    place = folder / _LOCK_FILE
    while True:
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            os.close(descriptor)
            if time.monotonic() >= end:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(folder)) from None
            time.sleep(_WAIT)
        except BaseException:
            os.close(descriptor)
            raise
        else:
            return Lock(descriptor, place)
