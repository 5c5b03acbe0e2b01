"""Unfinished results: hidden files and folders, which the next run removes if the run that began them was killed.

Their names are `.ortcam-` and 16 hexadecimal digits. The first 8 name the machine, because locks reach no further:

1. On this machine, a run locks what it works on. What is not locked is abandoned.
2. What another machine began, or what lies where there are no locks, is abandoned if it has not changed for a day.
3. Only what belongs to this user is removed, and links are not followed.
"""

import contextlib
import functools
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from ortcam.support.locks import Lock, lock

__all__ = [
    "ASIDE",
    "begun",
    "clear",
    "clear_locked",
    "new_name",
    "settle",
    "settle_later",
    "temporary_folder",
    "workspace",
]

# In a workspace: what was moved aside, and what becomes of files that were put beside the workspace.
ASIDE: Final = "before"
_PLAN: Final = "plan.json"

_BEGUN: Final = re.compile(r"\.ortcam-([0-9a-f]{8})[0-9a-f]{8}")
# As earlier versions named what they began, of which nobody knows the machine; theirs are written in milliseconds.
_BEGUN_FORMERLY: Final = re.compile(r"\.ortcam-(save-)?[0-9a-f]{8}")
_DATE: Final = "(19|20)[0-9]{2}(0[1-9]|1[0-2])([0-2][0-9]|3[01])"
_DAY: Final = 24 * 60 * 60.0
_PATIENCE: Final = 1.0  # seconds, for a folder that another run is clearing
_LARGEST_PLAN: Final = 1 << 16


def new_name() -> str:
    """Make an unused name, which tells the next run that this machine began it and may not have finished it."""
    return f".ortcam-{_machine()}{secrets.token_hex(4)}"


def workspace(parent: Path) -> contextlib.AbstractContextManager[Path]:
    """Make a hidden folder for this user alone, and remove it afterwards; remove first what killed runs left beside it.

    Args:
        parent: where it is made: beside the result, so that this can be moved into place, or for temporary files.

    Raises:
        OSError: it cannot be made.
    """
    clear(parent)
    return begun(parent)


@contextlib.contextmanager
def begun(parent: Path) -> Iterator[Path]:
    """Make a workspace, without removing what killed runs left beside it.

    The folder is locked, not the files in it: on SMB shares a locked file cannot be written, not even by its owner.

    Args:
        parent: where it is made.

    Raises:
        OSError: it cannot be made.
    """
    folder, held = _begin_folder(parent)
    try:
        yield folder
    finally:
        try:
            _end(folder)
        except BaseException:  # an interrupt meanwhile
            _end(folder)
            raise
        finally:
            if held is not None:
                held.release()
            if folder.exists():  # Windows does not remove a file that is open, as the locked one was
                _end(folder)


def temporary_folder() -> contextlib.AbstractContextManager[Path]:
    """Make a workspace in the system's folder for temporary files, for example for weights that do not fit into memory.

    Raises:
        OSError: it cannot be made.
    """
    return workspace(Path(tempfile.gettempdir()))


def settle_later(folder: Path, last: str, *, new: Sequence[Path], old: Sequence[Path]) -> None:
    """Record in a workspace which files beside it become useless if a run is killed while it puts several in place.

    Args:
        folder: the workspace, which holds `last`.
        last: name of the file that describes the others. It is moved out of the workspace last.
        new: files of the workspace that are useless outside until `last` has been moved.
        old: files beside the workspace that are useless once `last` has been moved.
    """
    plan = {"last": last, "new": _marks(new), "old": _marks(old)}
    (folder / _PLAN).write_text(json.dumps(plan), "utf-8")


def settle(folder: Path) -> None:
    """Restore a missing result from a workspace, and remove useless files beside it.

    Raises:
        OSError: something cannot be moved or removed.
    """
    parent = folder.parent
    aside = folder / ASIDE
    if _is_folder(aside):
        for item in sorted(aside.iterdir()):
            if not os.path.lexists(parent / item.name):
                item.rename(parent / item.name)
    plan = _plan(folder / _PLAN)
    if plan is not None:
        last, new, old = plan
        for name, mark in (new if os.path.lexists(folder / last) else old).items():
            with contextlib.suppress(FileNotFoundError):
                if _mark(parent / name) == mark:  # and not what another run has put there since
                    (parent / name).unlink()
        (folder / _PLAN).unlink(missing_ok=True)


def clear(folder: Path, *, former: str | None = None) -> None:
    """Remove what killed runs left in a folder, or restore a result that they had moved aside.

    Args:
        folder: left as it is if another run is writing to it, or if it cannot be read.
        former: name of a result in it. Earlier versions called their unfinished files `.NAME.HEX` and `.NAME.HEX.old`.
    """
    with contextlib.suppress(OSError):
        held = lock(folder, patience=_PATIENCE)
        try:
            clear_locked(folder, former=former)
        finally:
            if held is not None:
                held.release()


def clear_locked(folder: Path, *, former: str | None = None) -> None:
    """Do the same as `clear` for a caller that has locked the folder."""
    with contextlib.suppress(OSError):
        # And not `.NAME.20251231`: somebody's copy of that day.
        digits = rf"(?!{_DATE})[0-9a-f]{{8}}"
        formerly = None if former is None else re.compile(rf"\.{re.escape(former)}\.{digits}(\.old)?")
        with os.scandir(folder) as entries:
            found = [
                (folder / entry.name, named)
                for entry in entries
                if entry.name[:1] == "." and (named := _is_ours(entry, formerly)) is not None
            ]
        # What was moved aside last is what is missing.
        for path, is_here in sorted(found, key=lambda item: item[0].lstat().st_ctime_ns, reverse=True):
            with contextlib.suppress(OSError):
                _clear_one(path, is_here=is_here, former=former)


def _is_ours(entry: os.DirEntry[str], formerly: re.Pattern[str] | None) -> bool | None:
    """Tell whether an entry was begun on this machine; None if no run of this user began it."""
    state = entry.stat(follow_symlinks=False)
    is_folder = stat.S_ISDIR(state.st_mode)
    if not (is_folder or stat.S_ISREG(state.st_mode)) or (os.name == "posix" and state.st_uid != os.geteuid()):
        return None
    if (begun := _BEGUN.fullmatch(entry.name)) is not None:
        return begun[1] == _machine()
    if is_folder:
        return True if formerly is not None and formerly.fullmatch(entry.name) else None
    return True if _BEGUN_FORMERLY.fullmatch(entry.name) else None


def _clear_one(path: Path, *, is_here: bool, former: str | None) -> None:
    is_old = time.time() - _last_change(path) >= _DAY
    if not (is_here or is_old):
        return
    try:
        held = lock(path)
    except BlockingIOError:
        return  # somebody works on it
    try:
        if held is None and not is_old:
            return
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()
            return
        if former is not None and path.name.endswith(".old") and not os.path.lexists(path.with_name(former)):
            path.rename(path.with_name(former))
            return
        if held is not None and os.name == "nt":  # what is open cannot be removed there
            held.release()
            held = None
        _end(path)
    finally:
        if held is not None:
            held.release()


def _begin_folder(parent: Path) -> tuple[Path, Lock | None]:
    while True:
        folder = parent / new_name()
        folder.mkdir(mode=0o700)
        try:
            return folder, lock(folder)
        except (BlockingIOError, FileNotFoundError):  # another run has just taken it for nobody's
            continue
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _end(folder: Path) -> None:
    """Remove a workspace once it holds nothing useful. What can be neither restored nor removed stays."""
    with contextlib.suppress(OSError):
        settle(folder)
    aside = folder / ASIDE
    if _is_folder(aside) and any(not os.path.lexists(folder.parent / item.name) for item in aside.iterdir()):
        return
    shutil.rmtree(folder, ignore_errors=True)


def _marks(paths: Sequence[Path]) -> dict[str, list[int]]:
    """The marks of files, by name. Another run may just have removed one."""
    marks = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            marks[path.name] = _mark(path)
    return marks


def _mark(path: Path) -> list[int]:
    """A mark that tells a file from a later one of the same name."""
    state = path.lstat()
    return [state.st_ino, state.st_size, state.st_mtime_ns]


def _plan(path: Path) -> tuple[str, dict[str, list[int]], dict[str, list[int]]] | None:
    """Read what `settle_later` wrote; None if absent, or if a kill has left half of it."""
    try:
        state = path.lstat()
        if not stat.S_ISREG(state.st_mode) or state.st_size > _LARGEST_PLAN:
            return None
        plan = json.loads(path.read_bytes())
        last, new, old = plan["last"], dict(plan["new"]), dict(plan["old"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    names = [last, *new, *old]
    plain = all(isinstance(name, str) and name not in ("", ".", "..") and not set(name) & {"/", "\\"} for name in names)
    return (last, new, old) if plain else None


def _last_change(path: Path) -> float:
    """Find when a file, or anything in a folder, was last changed, in seconds since 1970."""
    newest = path.lstat().st_mtime
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            with contextlib.suppress(OSError):
                newest = max(newest, os.lstat(Path(folder, name)).st_mtime)
    return newest


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


@functools.cache
def _machine() -> str:
    """Eight digits for this boot of the machine, within which locks are seen."""
    try:
        booted = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
    except (OSError, ValueError):
        booted = platform.node()
    return hashlib.sha256(booted.encode()).hexdigest()[:8]
