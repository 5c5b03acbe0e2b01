"""Files and folders that are either complete or absent, even after a kill, and safely on the disk once reported."""

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

from ortcam.support.locks import lock
from ortcam.support.unfinished import ASIDE, begun, clear_locked, new_name, workspace

__all__ = [
    "FULL",
    "PATIENCE",
    "alone_in",
    "exchange",
    "make_folder",
    "move_folder",
    "replacing",
    "swap_function",
    "sync",
    "sync_all",
    "write_together",
    "write_whole",
]

# What a disk says that takes this result no more than the next one: full, over quota, read-only, a limit, or broken.
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)

PATIENCE: Final = 60.0  # seconds; a folder is written in milliseconds

# Linux: renameat2(2), macOS: renamex_np(2). Windows has nothing of the kind.
_CURRENT_FOLDER: Final = -100  # AT_FDCWD
_SWAP: Final = 2  # RENAME_EXCHANGE and RENAME_SWAP
# EXDEV: an overlay, of which a rootless container may be made, where it may not write down what it exchanges.
_NO_EXCHANGE: Final = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EXDEV)
# What a file system says that does not sync, or not folders; what a full or broken disk says is another matter.
_NO_SYNC: Final = (errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES)


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a place to write a file to. The file is moved over `path` at the end, or removed after an error.

    Args:
        path: of the file.
        durable: wait until it is on the disk, because the user is told that it is there.

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
    """Write a file beside its place, then move it there, replacing what is there.

    Args:
        path: of the file.
        content: of the file.
        durable: as for `replacing`.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    with replacing(path, durable=durable) as partial:
        partial.write_bytes(content)


def write_together(folder: Path, contents: Mapping[str, bytes], *, instead_of: Iterable[str] = ()) -> None:
    """Write files that belong together. All are on the disk beside their places before the first is moved there.

    With `instead_of` a new folder replaces the old one in one step, if the system can do that and the folder holds
    nothing else: a reader sees the old files or the new ones. Otherwise the files in `instead_of` are removed first,
    and for a moment the last of the new ones, which describes the others, is missing.

    Args:
        folder: of all files; this process has locked it.
        contents: by name, in the order in which they are moved. The file that describes the others comes last.
        instead_of: names of files to remove once all is written, before anything is moved.

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
    """Replace a folder that holds nothing but `gone` by the written files; false if that is impossible."""
    known = {*gone, *(path.name for path in (*places, *places.values()))}
    done = False
    try:
        found = folder.stat()
        if swap_function() is None or folder.is_symlink() or _is_current(found) or _names(folder) - known:
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
    """Tell whether a folder is the current one of this process, which must not be removed."""
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
    """Create a folder and missing parents, and wait until they are on the disk.

    Raises:
        OSError: it cannot be made.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync(path.parent)


def move_folder(made: Path, destination: Path, own: Path) -> None:
    """Put a folder in the place of another one, in one step if the system can, and wait until it is on the disk.

    If the system cannot exchange two folders (Windows, some network file systems), neither is there for a moment. If
    this run is killed in that moment, the next run restores the old one.

    Args:
        made: the complete folder, in the workspace.
        destination: beside the workspace. What is there ends up in the workspace, which is removed later.
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
    """Exchange the names of two files or folders in one step; false if system or file system cannot.

    Raises:
        OSError: one of them is missing, or must not be moved.
    """
    swap = swap_function()
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
def swap_function() -> Callable[[bytes, bytes], int] | None:
    """Find the function that exchanges two paths and returns 0 or the number of an error; None without one."""
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
    """Wait until a file, or the names in a folder, are on the disk, as far as system and file system support that.

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
    """Wait until a folder is on the disk with all its content.

    Raises:
        OSError: the disk is full, or broken.
    """
    for place, _, names in os.walk(folder):
        for name in names:
            sync(Path(place, name))
        sync(Path(place))


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Lock a folder, so that other processes and threads wait for it, if the system has such locks.

    What killed processes have left there is removed.

    Raises:
        OSError: there is no such folder, or another process keeps it.
    """
    try:
        held = lock(folder, patience=PATIENCE)
    except BlockingIOError:
        raise TimeoutError(errno.ETIMEDOUT, "another process is writing there and does not end") from None
    try:
        if held is not None:
            clear_locked(folder)
        yield
    finally:
        if held is not None:
            held.release()
