"""Fetching: the bytes of an image from wherever it lies, with a bound on their number, and again after a failure."""

import errno
import random
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, NoReturn

import pyarrow as pa

from ortcam.batch.items import CellPlace, FilePlace, MemberPlace, NoPlace, Place, address
from ortcam.batch.sources.cells import Column
from ortcam.batch.storage import absolute, filesystem, is_url, joined, without_query, without_secrets
from ortcam.errors import ImageError, OptionError
from ortcam.images.encoded import read_file
from ortcam.images.limits import DEFAULT_MAX_PIXELS, check_encoded, largest_file
from ortcam.support.terminal import one_line, printable

__all__ = ["Fetcher"]

_ATTEMPTS: Final = 4
_NO_RANGE: Final = re.compile("416|InvalidRange|not satisfiable", re.IGNORECASE)
_FIRST_PAUSE: Final = 0.5  # seconds; doubled after each failure
_LONGEST_PAUSE: Final = 8.0
# A disk or a network file system that may answer the next time.
_PASSING: Final = {errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT, errno.ENFILE, errno.EMFILE, errno.EINTR}
# What another attempt does not change.
_LASTING: Final = (
    *(FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError),
    *(MemoryError, OptionError, IndexError, pa.ArrowInvalid),
)


class Fetcher:
    """Fetches images, one at a time. It keeps open what the next image may lie in, so each thread needs its own.

    Args:
        storage_options: what fsspec takes for the places, such as `endpoint_url`.
        attempts: how often an image is tried whose store answers with an error that may pass.
        max_pixels: as of `read_image`; it bounds how many bytes are fetched.
        wait: called with the seconds between two attempts.

    Example:
        >>> from ortcam.batch.items import FilePlace
        >>> from ortcam.bundle.shipped import sample_images
        >>> len(Fetcher().fetch(FilePlace(str(sample_images()[0])))) > 0
        True
    """

    def __init__(
        self,
        storage_options: Mapping[str, Any] | None = None,
        attempts: int = _ATTEMPTS,
        *,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._options = dict(storage_options or {})
        self._attempts = max(attempts, 1)
        self._max_pixels = max_pixels
        self._wait = wait
        self._table: Column | None = None
        self._archive: tuple[str, Any] | None = None

    def fetch(self, place: Place) -> bytes:
        """The encoded bytes of an image.

        Raises:
            ImageError: it is not there, is too long, or cannot be fetched after all attempts.
        """
        pause = _FIRST_PAUSE
        for attempt in range(1, self._attempts + 1):
            try:
                return self._fetch(place)
            except ImageError as error:
                # What reads local files says what is wrong; the system's error is behind it.
                if attempt == self._attempts or getattr(error.__context__, "errno", None) not in _PASSING:
                    raise
            except Exception as error:  # noqa: BLE001 - each store raises what it likes
                self.close()
                if isinstance(error, _LASTING) and not isinstance(error.__cause__, OSError):
                    _refuse(place, error, 1)
                if attempt == self._attempts:
                    _refuse(place, error, attempt)
            self._wait(pause * random.uniform(0.75, 1.25))  # noqa: S311 - so that workers do not come back together
            pause = min(2 * pause, _LONGEST_PAUSE)
        raise AssertionError("unreachable")  # pragma: no cover

    def close(self) -> None:
        """Close what is open. The fetcher can be used again."""
        table, self._table = self._table, None
        archive, self._archive = self._archive, None
        for file in (table, None if archive is None else archive[1]):
            if file is not None:
                with suppress(Exception):
                    file.close()

    def _fetch(self, place: Place) -> bytes:
        match place:
            case FilePlace(url):
                return self._file(url)
            case CellPlace():
                return self._cell(place)
            case MemberPlace(url, offset, size):
                return self._member(url, offset, size, place)
            case NoPlace(error):
                raise ImageError(error)

    def _file(self, url: str) -> bytes:
        if not is_url(url):
            return read_file(absolute(url), self._max_pixels).data
        most = largest_file(self._max_pixels)
        system, path = filesystem(url, self._options)
        try:
            data: bytes = system.cat_file(path, start=0, end=most + 1)
        except Exception as error:
            # Some stores refuse a range of a file that is empty.
            if not _NO_RANGE.search(repr(error)) or system.info(path).get("size") != 0:
                raise
            data = b""
        check_encoded(len(data), _name(FilePlace(url)), self._max_pixels)
        return data

    def _member(self, url: str, offset: int, size: int, place: Place) -> bytes:
        check_encoded(size, _name(place), self._max_pixels)
        if is_url(url):
            system, path = filesystem(url, self._options)
            data: bytes = system.cat_file(path, start=offset, end=offset + size) if size else b""
        else:
            if self._archive is None or self._archive[0] != url:
                self.close()
                self._archive = url, open(absolute(url), "rb", buffering=0)  # noqa: PTH123, SIM115 - closed by close()
            file = self._archive[1]
            file.seek(offset)
            data = file.read(size)
        if len(data) > size:
            raise ImageError(
                f"{_name(place)} cannot be fetched: the server gives no part of a file; unpack the archive"
            )
        if len(data) < size:
            raise ImageError(f"{_name(place)} cannot be fetched: the archive ends {size - len(data)} bytes too early")
        return data

    def _cell(self, place: CellPlace) -> bytes:
        if self._table is None or not self._table.is_before(place):
            self.close()
            self._table = Column(place, self._options, largest_file(self._max_pixels))
        found = self._table.value(place.row)
        if isinstance(found, dict):
            content, path = found.get("bytes"), found.get("path")
            if content is None and isinstance(path, str) and path:
                return self._file(_beside(place.url, path))
            found = content
        if not isinstance(found, bytes):
            raise ImageError(f"{_name(place)} cannot be fetched: the cell is empty")
        check_encoded(len(found), _name(place), self._max_pixels)
        return found


def _beside(table: str, path: str) -> str:
    """The file that a table names: as it is if it says where it is from the root, else relative to the table."""
    if is_url(path) or path.startswith("/"):
        return path
    head, slash, _ = without_query(table).rpartition("/")
    return joined(head + slash, path)


def _name(place: Place) -> str:
    return f"image '{printable(without_secrets(address(place)))}'"


def _refuse(place: Place, error: BaseException, attempts: int) -> NoReturn:
    if isinstance(error, FileNotFoundError):
        why = "it does not exist"
    elif isinstance(error, PermissionError):
        why = "access is denied"
    else:
        why = getattr(error, "strerror", None) or one_line(error)
    tried = f" ({attempts} attempts)" if attempts > 1 else ""
    raise ImageError(f"{_name(place)} cannot be fetched: {printable(why)}{tried}") from None
