"""Locks of folders, and files that are safely on the disk."""

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.runtime.support.folders import make, move, names

from ortcam.support import files, locks
from ortcam.support.files import write_together, write_whole
from ortcam.support.locks import lock
from ortcam.support.unfinished import clear, workspace

posix = pytest.mark.skipif(os.name != "posix", reason="of POSIX")


@posix
def test_a_lock_is_of_the_folder_that_has_the_name_when_it_is_free(tmp_path: Path) -> None:
    folder = make(tmp_path / "x", "old")
    held = lock(folder)
    assert held is not None
    with pytest.raises(BlockingIOError):
        lock(folder)
    got: list[locks.Lock | None] = []
    waiting = threading.Thread(target=lambda: got.append(lock(folder, patience=60)))
    waiting.start()
    folder.rename(tmp_path / "y")
    make(folder, "new")
    held.release()
    waiting.join()
    with pytest.raises(BlockingIOError):
        lock(folder)
    assert got[0] is not None
    got[0].release()
    other = lock(tmp_path / "y")
    assert other is not None
    other.release()


class FakeMsvcrt(SimpleNamespace):
    """As Windows locks: a byte of a file, for everybody else, within one process, too."""

    LK_NBLCK, LK_UNLCK = 2, 0

    def __init__(self) -> None:
        super().__init__(locked=set())

    def locking(self, descriptor: int, mode: int, count: int) -> None:
        key = os.fstat(descriptor).st_ino
        if mode == self.LK_UNLCK:
            self.locked.remove(key)
        elif key in self.locked:
            raise PermissionError(errno.EACCES, "Permission denied")
        else:
            self.locked.add(key)


def test_where_bytes_of_files_are_locked_a_file_stands_for_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "msvcrt", FakeMsvcrt())
    with files.alone_in(tmp_path), pytest.raises(BlockingIOError):
        lock(tmp_path, patience=0.02)
    assert names(tmp_path) == []
    with workspace(tmp_path) as own:
        clear(tmp_path)
        assert own.exists()
    assert names(tmp_path) == []


def test_files_are_replaced_in_a_folder_that_can_be_written_to_and_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def iterdir(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    folder = make(tmp_path / "x", "old")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "iterdir", iterdir)
        write_together(folder, {"new": b"new"}, instead_of=["file"])
    assert names(folder) == ["new"]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_file_that_does_not_get_to_the_disk_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fsync(_: int) -> None:
        raise OSError(code, os.strerror(code))

    write_whole(tmp_path / "result", b"old")
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=os.strerror(code)):
        write_whole(tmp_path / "result", b"new", durable=True)
    with pytest.raises(OSError, match=os.strerror(code)):
        write_together(tmp_path, {"result": b"new"})
    assert names(tmp_path) == ["result"]
    assert (tmp_path / "result").read_bytes() == b"old"


@posix
@pytest.mark.parametrize("write", [lambda f: write_whole(f / "a", b"x", durable=True), move])
def test_what_is_told_to_be_there_is_synced_before_it_gets_its_name_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None]
) -> None:
    events: list[str] = []
    real_sync, real_replace, real_rename = os.fsync, Path.replace, Path.rename

    def fsync(descriptor: int) -> None:
        same = os.path.samestat(os.fstat(descriptor), tmp_path.stat())
        events.append("sync the folder" if same else "sync")
        real_sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", lambda path, target: (events.append("move"), real_replace(path, target))[1])
    monkeypatch.setattr(Path, "rename", lambda path, target: (events.append("move"), real_rename(path, target))[1])
    write(tmp_path)
    assert events[0] == "sync"
    assert events[-2:] == ["move", "sync the folder"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP])
def test_a_file_system_that_does_not_sync_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fsync(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    files.sync(tmp_path)
    write_whole(tmp_path / "result", b"x", durable=True)
    write_together(tmp_path, {"result": b"y"})
    assert (tmp_path / "result").read_bytes() == b"y"


@posix
def test_no_file_that_is_being_written_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On SMB shares, a lock on a file keeps even its owner from writing through another descriptor."""
    import fcntl

    locked: list[bool] = []
    real = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        locked.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    write_whole(tmp_path / "result", b"x")
    with files.alone_in(tmp_path):
        write_together(tmp_path, {"result": b"y"})
    assert locked
    assert all(locked)


@posix
def test_a_file_system_that_numbers_a_folder_anew_each_time_has_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "samestat", lambda *_: False)
    assert lock(tmp_path) is None
