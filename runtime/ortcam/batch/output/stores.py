"""Where an output lies: a folder of this machine, or an object store behind fsspec. A file there appears whole."""

import contextlib
import errno
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from fsspec.spec import AbstractFileSystem

from ortcam.batch.storage import filesystem, is_url, local_path, without_secrets
from ortcam.errors import OutputError
from ortcam.support.files import make_folder, replacing
from ortcam.support.locks import Lock, lock
from ortcam.support.terminal import one_line
from ortcam.support.unfinished import clear, new_name

__all__ = ["Store", "open_store"]

_LOCK: Final = "_lock"


class Store(Protocol):
    """A folder of files, each of which is either whole or not there."""

    name: str

    def exists(self) -> bool:
        """Tell whether there is anything in the folder that is not hidden."""
        ...

    def names(self) -> list[str]:
        """The names of the files in the folder itself, sorted; none if there is no folder."""
        ...

    def has(self, name: str) -> bool:
        """Tell whether there is a file of this name."""
        ...

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if there is none."""
        ...

    def open(self, name: str, *, at_once: bool = False) -> contextlib.AbstractContextManager[BinaryIO]:
        """Open a file to read parts of it.

        Args:
            name: of the file.
            at_once: fetch all of it in one request, so that it is all of one version.

        Raises:
            OutputError: it is not there, or cannot be read.
            OSError: it was replaced while parts of it were read.
        """
        ...

    def files(self, names: Sequence[str]) -> tuple[Any, list[str]]:
        """A file system of fsspec, None being that of this machine, and the paths of some files on it."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a file in one step, replacing one that is there: a reader sees the old one or the new one."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        ...

    def remove_folder(self) -> None:
        """Remove the folder itself, if it is empty."""
        ...

    def make(self) -> None:
        """Make the folder, where file systems have folders."""
        ...

    def begin(self) -> None:
        """Make the folder, keep others from writing there, and remove what killed runs left."""
        ...

    def close(self) -> None:
        """Let others write there."""
        ...


def open_store(url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> Store:
    """Find the place that a path or a URL names, without writing there.

    Args:
        url: a path, or an address such as `s3://bucket/folder`.
        storage_options: what fsspec passes on to the file system of the address.

    Raises:
        OptionError: no file system for the address, or options that it does not take.
        OutputError: no place at all.
    """
    text = os.fspath(url)
    if not text:
        raise OutputError("'': accepted is a folder, or an address such as s3://bucket/folder")
    if not is_url(text):
        return _Folder(Path(local_path(text)), text)
    file_system, path = filesystem(text, storage_options)
    return _Objects(file_system, path.rstrip("/"), without_secrets(text))


class _Folder:
    """A folder of this machine, or of a disk that is mounted."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self._path = path
        self._lock: Lock | None = None

    def exists(self) -> bool:
        with _in_words(self.name, "cannot read"):
            if not os.path.lexists(self._path):
                return False
            if not self._path.is_dir():
                raise OutputError(f"{self.name}: is a file; accepted is a folder that is empty or not there")
            return any(entry.name != _LOCK and entry.name[:1] != "." for entry in os.scandir(self._path))

    def names(self) -> list[str]:
        with _in_words(self.name, "cannot read"):
            try:
                with os.scandir(self._path) as entries:
                    return sorted(entry.name for entry in entries if entry.is_file())
            except FileNotFoundError:
                return []

    def has(self, name: str) -> bool:
        with _in_words(self.name, "cannot read"):
            return (self._path / name).is_file()

    def read(self, name: str) -> bytes | None:
        with _in_words(f"{self.name}/{name}", "cannot read"):
            try:
                return (self._path / name).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    @contextlib.contextmanager
    def open(self, name: str, *, at_once: bool = False) -> Iterator[BinaryIO]:  # noqa: ARG002 - an open file stays
        with _in_words(f"{self.name}/{name}", "cannot read"):
            opened = (self._path / name).open("rb")
        with opened:
            yield opened

    def files(self, names: Sequence[str]) -> tuple[Any, list[str]]:
        return None, [str(self._path / name) for name in names]

    def write(self, name: str, content: bytes) -> None:
        with _in_words(self.name, "cannot write"), replacing(self._path / name, durable=True) as partial:
            partial.write_bytes(content)

    def remove(self, name: str) -> None:
        with _in_words(self.name, "cannot write"):
            (self._path / name).unlink(missing_ok=True)

    def remove_folder(self) -> None:
        with contextlib.suppress(OSError):
            clear(self._path)
            self._path.rmdir()

    def make(self) -> None:
        with _in_words(self.name, "cannot write"):
            make_folder(self._path)

    def begin(self) -> None:
        self.make()
        with _in_words(self.name, "cannot write"):
            (self._path / _LOCK).mkdir(exist_ok=True)
            try:
                self._lock = lock(self._path / _LOCK)
            except BlockingIOError:
                raise OutputError(f"{self.name}: another process is writing there; wait until it ends") from None
            clear(self._path)

    def close(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None


class _Objects:
    """A folder of a file system of fsspec: an object store, which writes an object in one step."""

    def __init__(self, file_system: AbstractFileSystem, path: str, name: str) -> None:
        self.name = name
        self._fs = file_system
        self._path = path
        # One that renames can put a file in place whole; one that copies to move writes an object whole anyway.
        self._renames = type(file_system).mv is not AbstractFileSystem.mv

    def exists(self) -> bool:
        with _in_words(self.name, "cannot read"):
            self._fs.invalidate_cache()
            if self._fs.isfile(self._path):
                raise OutputError(f"{self.name}: is a file; accepted is a folder that is empty or not there")
            return bool(self._listed())

    def names(self) -> list[str]:
        with _in_words(self.name, "cannot read"):
            self._fs.invalidate_cache()
            return sorted(entry["name"].rpartition("/")[2] for entry in self._listed() if entry["type"] == "file")

    def has(self, name: str) -> bool:
        with _in_words(self.name, "cannot read"):
            try:
                self._fs.cat_file(f"{self._path}/{name}", start=0, end=1)  # `isfile` may know an old list of files
            except FileNotFoundError:
                return False
            return True

    def read(self, name: str) -> bytes | None:
        with _in_words(f"{self.name}/{name}", "cannot read"):
            try:
                return bytes(self._fs.cat_file(f"{self._path}/{name}"))
            except FileNotFoundError:
                return None

    @contextlib.contextmanager
    def open(self, name: str, *, at_once: bool = False) -> Iterator[BinaryIO]:
        place = f"{self._path}/{name}"
        with _in_words(f"{self.name}/{name}", "cannot read"):
            if at_once:
                before, opened = None, io.BytesIO(self._fs.cat_file(place))
            else:
                before, opened = self._state(place), self._fs.open(place, "rb")
        with opened:
            yield opened
        if before is not None and self._state(place) != before:
            raise OSError(errno.ESTALE, "it was replaced meanwhile")

    def _state(self, place: str) -> dict[str, Any]:
        """What the store says of an object: its time, and its hash if it has one."""
        self._fs.invalidate_cache(place)
        return dict(self._fs.info(place))

    def files(self, names: Sequence[str]) -> tuple[Any, list[str]]:
        return self._fs, [f"{self._path}/{name}" for name in names]

    def write(self, name: str, content: bytes) -> None:
        place = f"{self._path}/{name}"
        with _in_words(self.name, "cannot write"):
            if not self._renames:
                self._fs.pipe_file(place, content)
                return
            partial = f"{self._path}/{new_name()}"
            try:
                self._fs.pipe_file(partial, content)
                self._fs.mv(partial, place)
            except BaseException:
                with contextlib.suppress(Exception):
                    self._fs.rm_file(partial)
                raise

    def remove(self, name: str) -> None:
        with _in_words(self.name, "cannot write"), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._path}/{name}")

    def remove_folder(self) -> None:
        if self._renames:
            with contextlib.suppress(Exception):  # it may be in use
                self._fs.rmdir(self._path)

    def make(self) -> None:
        with _in_words(self.name, "cannot write"):
            if self._renames:
                self._fs.makedirs(self._path, exist_ok=True)

    def begin(self) -> None:
        self.make()

    def close(self) -> None:
        pass

    def _listed(self) -> list[dict[str, Any]]:
        try:
            return [entry for entry in self._fs.ls(self._path, detail=True) if entry["name"].rstrip("/") != self._path]
        except FileNotFoundError:
            return []


@contextlib.contextmanager
def _in_words(name: str, what: str) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except ImportError as error:  # fsspec says which package an address needs
        raise OutputError(f"{name}: {what}: {error}") from error
    except OSError as error:
        raise OutputError(f"{name}: {what}: {error.strerror or one_line(error)}") from error
    except Exception as error:  # the client of an object store has errors of its own
        raise OutputError(f"{name}: {what}: {type(error).__name__}: {one_line(error)}") from error
