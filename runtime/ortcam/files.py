"""Files and folders that are whole or not there, even after a kill, and on the disk where somebody is told so."""

import contextlib
import ctypes
import errno
import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from ortcam.locks import lock
from ortcam.unfinished import ASIDE, begun, clear_locked, new_name, workspace

__all__ = [
    "FULL",
    "alone_in",
    "exchange",
    "make_folder",
    "move_folder",
    "replacing",
    "sync",
    "sync_all",
    "write_together",
    "write_whole",
]

# What a disk says that takes this result no more than the next one: full, over quota, read-only, a limit, or broken.
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)

_PATIENCE: Final = 60.0  # seconds; a folder is written in milliseconds

# Linux: renameat2(2), macOS: renamex_np(2). Windows has nothing of the kind.
_CURRENT_FOLDER: Final = -100  # AT_FDCWD
_SWAP: Final = 2  # RENAME_EXCHANGE and RENAME_SWAP
# EXDEV: an overlay, of which a rootless container may be made, where it may not write down what it exchanges.
_NO_EXCHANGE: Final = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EXDEV)
# What a file system says that does not sync, or not folders; what a full or broken disk says is another matter.
_NO_SYNC: Final = (errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES)


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A place to write a file to; it is moved over `path` at the end, or removed if anything goes wrong.

    Args:
        path: of the file.
        durable: whether it is to be on the disk at the end, since somebody is told that it is there.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    with begun(path.parent) as own:
        partial = own / path.name
        yield partial
        if durable:
            sync(partial)
        partial.replace(path)
        if durable:
            sync(path.parent)


def write_whole(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Write a file beside its place and move it there, over what is there.

    Args:
        path: of the file.
        content: of the file.
        durable: as of `replacing`.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    with replacing(path, durable=durable) as partial:
        partial.write_bytes(content)


def write_together(folder: Path, contents: Mapping[str, bytes], *, instead_of: Iterable[str] = ()) -> None:
    """Write files that belong together: all are on the disk beside their places before the first is moved there.

    With `instead_of` a new folder takes the place of the old one in one step, where the system can do that and the
    folder holds nothing else: whoever reads there sees the old files or the new ones. Elsewhere the files in
    `instead_of` go first, and for a moment the last of the new ones, which speaks for the others, is missing.

    Args:
        folder: of all of them; this process has it locked.
        contents: by name, in the order in which they are moved; the file that speaks for the others comes last.
        instead_of: names of files that go once all is written and before anything is moved.

    Raises:
        OSError: they cannot be written; what was there is left as it is.
    """
    for name in contents:
        if (folder / name).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(folder / name))
    places: dict[Path, Path] = {}
    gone = list(instead_of)
    try:
        for name, content in contents.items():
            partial = folder / new_name()
            places[partial] = folder / name
            partial.write_bytes(content)
        for partial in places:
            sync(partial)
        if gone and _exchanged(folder, places, gone):
            return
        for name in gone:
            (folder / name).unlink(missing_ok=True)
        for partial, place in places.items():
            partial.replace(place)
        sync(folder)
    finally:
        for partial in places:
            partial.unlink(missing_ok=True)


def _exchanged(folder: Path, places: Mapping[Path, Path], gone: Iterable[str]) -> bool:
    """Put written files in the place of a folder that holds nothing but `gone`; false where that is impossible."""
    known = {*gone, *(path.name for path in (*places, *places.values()))}
    done = False
    try:
        found = folder.stat()
        if _swap() is None or folder.is_symlink() or _is_current(found) or _names(folder) - known:
            return False
        with workspace(folder.parent) as own:
            made = own / "made"
            made.mkdir()
            shutil.copystat(folder, made)
            new = made.stat()
            if (new.st_uid, new.st_gid) != (found.st_uid, found.st_gid):
                return False
            try:
                for partial, place in places.items():
                    partial.rename(made / place.name)
                sync(made)
                done = exchange(made, folder)
            finally:
                if not done:
                    _move_back(made, places)
            if done:
                sync(folder.parent)
                for name in _names(made) - known:  # put there by somebody at this very moment
                    (made / name).rename(folder / name)
    except OSError:  # there is no right to read the folder or to write beside it, or something is mounted on it
        if done:
            raise
    return done


def _is_current(found: os.stat_result) -> bool:
    """Whether a folder is the one that this process is in, which would find itself in a folder that is gone."""
    with contextlib.suppress(OSError):
        return os.path.samestat(found, Path().stat())
    return False


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _move_back(made: Path, places: Mapping[Path, Path]) -> None:
    for partial, place in places.items():
        with contextlib.suppress(FileNotFoundError):
            (made / place.name).rename(partial)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are not there, and have them on the disk.

    Raises:
        OSError: it cannot be made.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync(path.parent)


def move_folder(made: Path, destination: Path, own: Path) -> None:
    """Give a folder the name of another one, in one step as far as the system can, and have it on the disk.

    Where the system cannot exchange two folders (Windows, some network file systems) there is a moment without either.
    The next run brings the old one back if this one is killed in that moment.

    Args:
        made: whole, in the workspace.
        destination: beside the workspace; what is there ends up in the workspace, which is removed later.
        own: the workspace.

    Raises:
        OSError: it cannot be moved; what was there is left as it is.
    """
    sync_all(made)
    if not os.path.lexists(destination):
        made.rename(destination)
    elif not exchange(made, destination):
        aside = own / ASIDE / destination.name
        aside.parent.mkdir()
        try:
            destination.rename(aside)
            made.rename(destination)
        except BaseException:  # an interrupt, too
            if os.path.lexists(aside) and not os.path.lexists(destination):
                aside.rename(destination)
            raise
    sync(destination.parent)


def exchange(first: Path, second: Path) -> bool:
    """Exchange the names of two files or folders in one step; false where system or file system cannot.

    Raises:
        OSError: one of them is missing, or must not be moved.
    """
    swap = _swap()
    if swap is None:
        return False
    sys.audit("os.rename", os.fspath(first), os.fspath(second), -1, -1)
    code = swap(os.fsencode(first), os.fsencode(second))
    if code in _NO_EXCHANGE:
        return False
    if code:
        raise OSError(code, os.strerror(code), os.fspath(first), None, os.fspath(second))
    return True


@functools.cache
def _swap() -> Callable[[bytes, bytes], int] | None:
    """A function that exchanges two paths and returns 0, or the number of an error; None where there is none."""
    name = {"linux": "renameat2", "darwin": "renamex_np"}.get(sys.platform)
    if name is None:
        return None
    try:
        function = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (OSError, AttributeError):
        return None
    function.restype = ctypes.c_int

    def swap(first: bytes, second: bytes) -> int:
        flag = ctypes.c_uint(_SWAP)
        if name == "renameat2":
            done = function(_CURRENT_FOLDER, ctypes.c_char_p(first), _CURRENT_FOLDER, ctypes.c_char_p(second), flag)
        else:
            done = function(ctypes.c_char_p(first), ctypes.c_char_p(second), flag)
        return 0 if done == 0 else ctypes.get_errno()

    return swap


def sync(path: Path) -> None:
    """Have a file on the disk, or the names in a folder, as far as the system and the file system do that.

    Raises:
        OSError: the disk is full, or broken.
    """
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return
    try:
        descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    except PermissionError:
        if is_folder:  # it can be written to and not be read
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def sync_all(folder: Path) -> None:
    """Have a folder on the disk with all that is in it.

    Raises:
        OSError: the disk is full, or broken.
    """
    for place, _, names in os.walk(folder):
        for name in names:
            sync(Path(place, name))
        sync(Path(place))


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes and threads that ask for the same folder waiting, where the system has such locks.

    What killed processes have left there is removed.

    Raises:
        OSError: there is no such folder, or another process does not leave it.
    """
    try:
        held = lock(folder, patience=_PATIENCE)
    except BlockingIOError:
        raise TimeoutError(errno.ETIMEDOUT, "another process is writing there and does not end") from None
    try:
        if held is not None:
            clear_locked(folder)
        yield
    finally:
        if held is not None:
            held.release()
