"""The bytes of an image as they are given: by path, as bytes, or in a file object."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ortcam.errors import ImageError
from ortcam.images.arrays.files import is_array_file
from ortcam.images.arrays.pixels import is_array, is_pillow
from ortcam.images.formats.accepted import ACCEPTED, HEAD, check_signature
from ortcam.images.limits import DEFAULT_MAX_PIXELS, check_encoded
from ortcam.support.terminal import one_line, printable

__all__ = ["Encoded", "encoded_of", "read_file"]

_STREAM_BLOCK: Final = 1 << 22  # bytes that are taken from a file object at a time


@dataclass
class Encoded:
    """The bytes of an image, which whoever decodes it takes, so that they are freed when they are needed no more."""

    name: str
    data: bytes

    def take(self) -> bytes:
        """The bytes; none are left."""
        taken, self.data = self.data, b""
        return taken


def read_file(path: str | os.PathLike[str], max_pixels: int = DEFAULT_MAX_PIXELS) -> Encoded:
    """The content of an image's file. One of another format, or one that is too long, is not read to its end.

    Args:
        path: of the file.
        max_pixels: as of `read_image`.

    Raises:
        ImageError: it is missing, no regular file, of a format that is not accepted, too long, or cannot be read.
    """
    path = os.fsdecode(path)
    name = f"image {_quoted(path)}"
    try:
        _check_regular(Path(path).stat().st_mode, name)  # before it is opened: a device may do something then
        with open(path, "rb", opener=_open_at_once, buffering=0) as file:
            found = os.fstat(file.fileno())
            _check_regular(found.st_mode, name)
            head = file.read(HEAD) or b""
            if head and not is_array_file(head):
                check_signature(head, name)
            check_encoded(found.st_size, name, max_pixels)
            file.seek(0)
            parts, size = [], 0
            # A byte more than it had, so that its end is seen at once; it may grow, or not have said its size.
            while part := file.read(max(found.st_size - size, 0) + 1):
                parts.append(part)
                size += len(part)
                check_encoded(size, name, max_pixels)
            return Encoded(name, parts[0] if len(parts) == 1 else b"".join(parts))
    except FileNotFoundError:
        hint = "; a pattern goes to explain_many" if any(mark in name for mark in "*?[") else ""
        raise ImageError(f"{name} does not exist: give the path of an image ({ACCEPTED}){hint}") from None
    except MemoryError:
        raise ImageError(f"{name} does not fit into memory: give a smaller file") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{name} cannot be read ({reason}): give the path of a readable file") from None


def _quoted(path: str) -> str:
    r"""A path as messages have it: what no terminal shows is escaped as everywhere, say 'caf\xe9.jpg'."""
    mark = '"' if "'" in path else "'"
    return f"{mark}{printable(path)}{mark}"


def _open_at_once(path: str, flags: int) -> int:
    # A pipe that has come into the file's place would wait for a writer.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check_regular(mode: int, name: str) -> None:
    if stat.S_ISDIR(mode):
        raise ImageError(
            f"{name} is a folder: give the path of one image ({ACCEPTED}), or use explain_many, which takes a folder"
        )
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}
        what = kinds.get(stat.S_IFMT(mode), "no file")
        raise ImageError(f"{name} is {what}: give the path of a regular file, or the encoded bytes in Python")


def encoded_of(source: object, max_pixels: int = DEFAULT_MAX_PIXELS) -> Encoded | None:
    """The bytes of a path, of bytes or of a binary file object; None for everything else.

    Args:
        source: as `read_image` takes it.
        max_pixels: as of `read_image`; it bounds how many bytes are read.

    Raises:
        ImageError: the file is missing, cannot be read or is too long.
    """
    if isinstance(source, str | os.PathLike):
        return read_file(source, max_pixels)
    if isinstance(source, bytes | bytearray | memoryview):
        size = memoryview(source).nbytes
        name = f"image of {size} bytes"
        check_encoded(size, name, max_pixels)
        return Encoded(name, bytes(source))
    if hasattr(source, "read") and not is_pillow(source) and not is_array(source):
        return _read_stream(source, max_pixels)
    return None


def _read_stream(stream: Any, max_pixels: int) -> Encoded:
    """What is left in a binary file object. It stays open."""
    given = getattr(stream, "name", None)
    name = f"image {_quoted(given)}" if isinstance(given, str) else f"image in {type(stream).__name__}"
    parts: list[bytes] = []
    size = 0
    while True:
        try:
            part = stream.read(_STREAM_BLOCK)
        except Exception as error:  # noqa: BLE001 - a network library raises what it likes
            reason = getattr(error, "strerror", None) or one_line(error)
            raise ImageError(f"{name} cannot be read ({reason}): give a binary file object that is open") from None
        if not isinstance(part, bytes | bytearray | memoryview):
            if hasattr(part, "close"):
                part.close()  # of a coroutine, which would warn that nobody waited for it
            how = "open it in binary mode, 'rb'" if isinstance(part, str) else "give the bytes that it has"
            raise ImageError(f"{name} gives {type(part).__name__} instead of bytes: {how}")
        if not part:
            break
        parts.append(bytes(part))
        size += len(part)
        check_encoded(size, name, max_pixels)
    if not size and _position(stream):
        raise ImageError(f"{name} is at its end: call seek(0) before it is read again")
    return Encoded(name, parts[0] if len(parts) == 1 else b"".join(parts))


def _position(stream: Any) -> int:
    try:
        return int(stream.tell())
    except Exception:  # noqa: BLE001 - not every stream knows
        return 0
