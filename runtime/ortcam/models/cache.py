"""The cache of exported bundles: a folder per model and options, the least recently used one goes first.

Each entry is a folder named by its key, a hash of all that the bundle was made of (`ortcam.models.identity`):

- `entry.json`: the model as it was named, and its options. Its time of change is when the entry was used last.
- `bundle/NAME.ortcam`: the bundle, which an export moves there when it is complete.

A process locks the entries that it uses until it ends. Locked entries are not removed, and processes that need the
same bundle wait until one of them has exported it. Where there are no such locks, what was used within a day stays.
"""

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ortcam.bundle import MANIFEST_NAME
from ortcam.errors import OptionError, OutputError
from ortcam.support.cache_folder import VARIABLE, bundles_folder
from ortcam.support.files import make_folder, write_whole
from ortcam.support.locks import Lock, lock
from ortcam.support.ranges import CACHE_SIZE, shown
from ortcam.support.strict_json import encode_json, parse_json
from ortcam.support.unfinished import clear, new_name

__all__ = [
    "DEFAULT_GIGABYTES",
    "SIZE_VARIABLE",
    "CacheEntry",
    "CacheError",
    "clear_cache",
    "entries",
    "in_use",
    "most_bytes",
    "obtain",
    "trim",
]

# Names the most gigabytes that the entries may have together. The newest stays, whatever its size.
SIZE_VARIABLE: Final = "ORTCAM_CACHE_SIZE"
DEFAULT_GIGABYTES: Final = 10.0

_RECORD: Final = "entry.json"
_MOST_OF_A_RECORD: Final = 2**20  # bytes
_SOON: Final = 0.2  # seconds within which a lock is got where nobody exports
_PATIENCE: Final = 900.0  # seconds to wait for another process's export
_TRIES: Final = 10  # to lock a damaged bundle that others only use
_DAY: Final = 24 * 60 * 60.0

# The entries that this process uses, until it ends, and the lock on each where there are locks.
in_use: dict[Path, Lock | None] = {}


class CacheError(OutputError):
    """The cache folder cannot be written to; what cannot be kept can still be made."""


@dataclasses.dataclass(frozen=True)
class CacheEntry:
    """A bundle in the cache.

    Attributes:
        folder: of the entry.
        model: as it was named.
        options: those given, in words.
        size: of all its files, in bytes.
        last_used: seconds since 1970.
    """

    folder: Path
    model: str
    options: str
    size: int
    last_used: float


def obtain(
    key: str,
    name: str,
    record: Mapping[str, str],
    make: Callable[[Path], object],
    *,
    waiting: Callable[[], None] = lambda: None,
) -> tuple[Path, bool]:
    """The bundle of a key: the one in the cache, or a new one.

    Args:
        key: of the entry; plain letters and digits.
        name: of the bundle's folder.
        record: "model" and "options" in words.
        make: writes the bundle to a path; its errors are passed on, and nothing is kept.
        waiting: called when another process is exporting the same.

    Returns:
        The bundle, which no process removes while this one lives, and whether it was there already.

    Raises:
        CacheError: the cache folder cannot be written to, or nothing is to be kept.
        OptionError: `ORTCAM_CACHE_SIZE` is no size.
    """
    most_bytes()  # before the work
    root = _made_root()
    folder = root.absolute() / key
    place = folder / "bundle" / f"{name}.ortcam"
    made = told = False
    tries = 0
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        if _take(folder, place):
            return place, not made
        earlier = in_use.pop(folder, None)
        if earlier is not None:  # of a bundle that somebody has removed or damaged
            earlier.release()
        try:
            make_folder(place.parent)
            held = lock(folder, patience=_SOON)
        except FileNotFoundError:
            continue  # another process has just removed what looked like a leftover
        except BlockingIOError:
            if not told:
                waiting()
            told = True
            tries = tries + 1 if _is_only_used(folder) else 0
            if tries == _TRIES:
                raise CacheError(f"{place} is damaged, and another process uses it") from None
            continue  # another process is making it, or has just made it
        except OSError as error:
            raise CacheError(f"the cache folder {root} cannot be written to: {error.strerror or error}") from None
        try:
            if not _is_complete(place):
                _make(folder, place, record, make)
                made = True
        finally:
            if held is not None:
                held.release()
    raise CacheError(f"{folder}: another process has been working on it for {_PATIENCE / 60:.0f} minutes")


def trim() -> None:
    """Remove the entries used least recently, until the others fit into the bound; what is in use stays."""
    root = bundles_folder()
    if root is None:
        return
    most = most_bytes()
    clear(root)
    found = sorted(_entries(root), key=lambda entry: entry.last_used)
    size = sum(entry.size for entry in found)
    for entry in found[:-1]:
        if size <= most:
            break
        if _remove(entry):
            size -= entry.size


def entries() -> list[CacheEntry]:
    """What is in the cache, the entry used last first."""
    root = bundles_folder()
    return [] if root is None else sorted(_entries(root), key=lambda entry: -entry.last_used)


def clear_cache() -> tuple[list[CacheEntry], list[CacheEntry]]:
    """Remove all entries but those in use.

    Returns:
        What was removed, and what was not.
    """
    root = bundles_folder()
    if root is not None:
        clear(root)
    removed: list[CacheEntry] = []
    kept: list[CacheEntry] = []
    for entry in entries():
        (removed if _remove(entry, clearing=True) else kept).append(entry)
    return removed, kept


def most_bytes() -> int:
    """How many bytes the entries may have together: of `ORTCAM_CACHE_SIZE`, in gigabytes, or 10 GB.

    Raises:
        OptionError: the variable is no number of gigabytes.
    """
    value = os.environ.get(SIZE_VARIABLE)
    if not value:
        return int(DEFAULT_GIGABYTES * 1e9)
    try:
        return int(CACHE_SIZE.parse(value) * 1e9)
    except ValueError:
        raise OptionError(f"{SIZE_VARIABLE}={shown(value)}: accepted is {CACHE_SIZE.words}, say 20") from None


def _made_root() -> Path:
    """The folder of all entries, which is there.

    Raises:
        CacheError: it cannot be made, or nothing is to be kept.
    """
    root = bundles_folder()
    if root is None:
        raise CacheError("ORTCAM_CACHE is off" if VARIABLE in os.environ else "there is no home folder")
    try:
        make_folder(root)
    except OSError as error:
        raise CacheError(f"the cache folder {root} cannot be written to: {error.strerror or error}") from None
    return root


def _make(folder: Path, place: Path, record: Mapping[str, str], make: Callable[[Path], object]) -> None:
    try:
        if place.exists():  # damaged
            shutil.rmtree(place)
        write_whole(folder / _RECORD, encode_json(dict(record), ascii_only=True).encode() + b"\n")
    except OSError as error:
        raise CacheError(f"the cache folder {folder.parent} cannot be written to: {error.strerror or error}") from None
    try:
        make(place)
    except BaseException:
        # Where a file system has no locks, another process may have been faster.
        if not _is_complete(place):
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _take(folder: Path, place: Path) -> bool:
    """Lock a complete entry as used by this process; false where there is none."""
    if folder not in in_use:
        try:
            held = lock(folder, shared=True, patience=_SOON)
        except OSError:  # there is none, or another process is making it
            return False
        if not _is_complete(place):
            if held is not None:
                held.release()
            return False
        in_use[folder] = held
    with contextlib.suppress(OSError):  # a cache that is read only
        os.utime(folder / _RECORD)
    return _is_complete(place)


def _is_only_used(folder: Path) -> bool:
    """Whether no process is making the bundle of an entry."""
    try:
        held = lock(folder, shared=True)
    except OSError:
        return False
    if held is not None:
        held.release()
    return True


def _is_complete(place: Path) -> bool:
    """Whether a bundle is there, and none of its files is missing or truncated; hashes are checked when it is read."""
    try:
        files = parse_json((place / MANIFEST_NAME).read_bytes())["files"]
        return all((place / name).stat().st_size == file["size"] for name, file in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _entries(root: Path) -> Iterator[CacheEntry]:
    try:
        folders = sorted(path for path in root.iterdir() if path.is_dir() and path.name[:1] != ".")
    except OSError:
        return
    for folder in folders:
        record = _record(folder / _RECORD)
        if record is None and not _is_begun(folder):
            continue  # somebody's own
        size, last = 0, 0.0
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):
                state = path.lstat()
                size += state.st_size
                last = max(last, state.st_mtime)
        with contextlib.suppress(OSError):
            last = (folder / _RECORD).stat().st_mtime
        words = {name: str((record or {}).get(name, "")) for name in ("model", "options")}
        yield CacheEntry(folder, words["model"] or "(unfinished)", words["options"], size, last)


def _is_begun(folder: Path) -> bool:
    """Whether a folder is an entry whose process was killed before it had a record: nothing else is in it."""
    try:
        inside = {path.name for path in folder.iterdir() if path.name[:1] != "."}
        return inside == {"bundle"} and all(
            path.suffix == ".ortcam" or path.name[:1] == "." for path in (folder / "bundle").iterdir()
        )
    except OSError:
        return False


def _record(path: Path) -> dict[str, Any] | None:
    try:
        if path.stat().st_size > _MOST_OF_A_RECORD:
            return None
        content = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and {"model", "options"} <= content.keys() else None


def _remove(entry: CacheEntry, *, clearing: bool = False) -> bool:
    """Remove an entry that no process uses; false where one does."""
    folder = entry.folder
    if folder in in_use:
        return False
    try:
        held = lock(folder)
    except OSError:
        return False
    try:
        has_shared_locks = held is not None and os.name == "posix"
        if not has_shared_locks and not clearing and time.time() - entry.last_used < _DAY:
            return False
        aside = folder.with_name(new_name())
        if os.name == "nt" and held is not None:  # what is open cannot be moved there
            held.release()
            held = None
        folder.rename(aside)  # in one step: nobody sees half of it
    except OSError:
        return False
    finally:
        if held is not None:
            held.release()
    shutil.rmtree(aside, ignore_errors=True)
    return True
