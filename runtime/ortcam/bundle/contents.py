"""The verified bytes of a bundle's files. Equal contents are in memory once."""

import dataclasses
import hashlib
import os
import weakref
from pathlib import Path

from ortcam.bundle.manifest import FileRecord
from ortcam.errors import BundleError

__all__ = ["Content", "check_file", "file_sha256", "held", "read_file"]


@dataclasses.dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Content:
    """The verified bytes of a file, and their SHA-256."""

    data: bytes = dataclasses.field(repr=False)
    sha256: str


# SHA-256 -> what a file of this hash holds: explainers of equal weights share them, and the last one lets them go.
_contents: "weakref.WeakValueDictionary[str, Content]" = weakref.WeakValueDictionary()


def held(sha256: str) -> Content | None:
    """Return what is in memory of a file of this hash; None if nobody holds it."""
    return _contents.get(sha256)


def file_sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_file(folder: Path, name: str, record: FileRecord) -> Content:
    """Read and verify a whole file. Equal contents are kept in memory once.

    Raises:
        BundleError: it is missing, cannot be read, or is not what the record says.
    """
    path = _regular(folder / name)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            _check_size(path, size, record)
            data = file.read(record.size + 1)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from None
    _check_size(path, len(data), record)
    _check_hash(path, hashlib.sha256(data).hexdigest(), record)
    return _contents.setdefault(record.sha256, Content(data, record.sha256))


def check_file(folder: Path, name: str, record: FileRecord) -> None:
    """Verify a file without keeping it in memory.

    Raises:
        BundleError: as `read_file`.
    """
    path = _regular(folder / name)
    try:
        _check_size(path, path.stat().st_size, record)
        digest = file_sha256(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from None
    _check_hash(path, digest, record)


def _regular(path: Path) -> Path:
    try:
        there = path.is_file()
    except OSError as error:  # a name too long for this file system
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from None
    if not there:
        raise BundleError(f"{path}: missing from the bundle; copy or export it again")
    return path


def _check_size(path: Path, size: int, record: FileRecord) -> None:
    if size != record.size:
        what = "truncated" if size < record.size else "altered"
        raise BundleError(f"{path}: {what}, {size} bytes instead of {record.size}; copy or export the bundle again")


def _check_hash(path: Path, digest: str, record: FileRecord) -> None:
    if digest != record.sha256:
        raise BundleError(
            f"{path}: altered, its SHA-256 is not the one in bundle.json; copy or export the bundle again"
        )
