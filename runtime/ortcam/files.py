"""Files that are either whole or not there, and folders that one process at a time writes to."""

import contextlib
import errno
import importlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Final

__all__ = ["alone_in", "replacing", "write_together", "write_whole"]

fcntl: ModuleType | None = importlib.import_module("fcntl") if os.name == "posix" else None

# Of the names of files that are not whole yet; short, since names may be as long as can be.
_BEGUN: Final = ".ortcam-"
_BEGUN_TOGETHER: Final = ".ortcam-save-"
_PATIENCE: Final = 60.0  # seconds; a folder is written in milliseconds
_WAIT: Final = 0.005


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place to write a file to; it is moved over `path` at the end, or removed if anything goes wrong."""
    partial = _beside(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place and move it there, over what is there.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_together(folder: Path, contents: Mapping[str, bytes], *, instead_of: Iterable[str] = ()) -> None:
    """Write files that belong together: all are written beside their places before the first is moved there.

    Args:
        folder: of all of them.
        contents: by name, in the order in which they are moved; the file that speaks for the others comes last.
        instead_of: names of files that go once all is written and before anything is moved.

    Raises:
        OSError: they cannot be written; what was there is left as it is.
    """
    for name in contents:
        if (folder / name).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(folder / name))
    places: dict[Path, Path] = {}
    try:
        for name, content in contents.items():
            partial = _beside(folder / name, _BEGUN_TOGETHER)
            places[partial] = folder / name
            partial.write_bytes(content)
        for name in instead_of:
            (folder / name).unlink(missing_ok=True)
        for partial, place in places.items():
            partial.replace(place)
    finally:
        for partial in places:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes and threads that ask for the same folder waiting, where the system has such locks.

    What a killed process has left there of `write_together` is removed.

    Raises:
        OSError: there is no such folder, or another process does not leave it.
    """
    lock = _locked(folder)
    try:
        if lock is not None:
            for left in folder.glob(f"{_BEGUN_TOGETHER}*"):
                left.unlink(missing_ok=True)
        yield
    finally:
        if lock is not None and fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_UN)  # for a process forked meanwhile, too
            os.close(lock)


def _locked(folder: Path) -> int | None:
    """An open folder that this process has locked; None where folders cannot be locked."""
    if fcntl is None:
        return None
    try:
        lock = os.open(folder, os.O_RDONLY)
    except PermissionError:  # it can be written to and not be read
        return None
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                os.close(lock)
                raise TimeoutError(errno.ETIMEDOUT, "another process is writing there and does not end") from None
            time.sleep(_WAIT)
        except OSError:  # a file system without locks
            os.close(lock)
            return None
        except BaseException:  # an interrupt
            os.close(lock)
            raise
        else:
            return lock


def _beside(path: Path, begun: str = _BEGUN) -> Path:
    return path.with_name(f"{begun}{secrets.token_hex(4)}")
