"""What the server and a process that decodes say to each other: a head in JSON, and arrays as raw bytes behind it.

The process works on hostile bytes, and its decoders are native code. So nothing that it says is trusted: no pickles,
and no array larger than the reader expects.

A frame: 4 bytes, little-endian, the length of the head; the head, an object; then the bytes of each part, whose lengths
the head has as `sizes`.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["BrokenFrameError", "Stream", "read_array", "read_bytes", "read_head", "write_frame"]

_LONGEST_HEAD: Final = 1 << 20  # bytes


class Stream(Protocol):
    """An unbuffered file: of a pipe."""

    @property
    def readinto(self) -> Callable[[Any], int | None]:
        """Fill a buffer, or its beginning; 0 at the end."""

    @property
    def write(self) -> Callable[[Any], int | None]:
        """Write bytes, or the first of them."""


class BrokenFrameError(Exception):
    """The other side is gone in mid-frame, or before it."""


def write_frame(stream: Stream, head: dict[str, Any], parts: Sequence[bytes | memoryview] = ()) -> None:
    """Say something.

    Args:
        stream: to write to.
        head: values that JSON has; without `sizes`, which is added.
        parts: bytes that follow.

    Raises:
        OSError: the other side is gone.
    """
    text = json.dumps(head | {"sizes": [memoryview(part).nbytes for part in parts]}).encode()
    _write(stream, memoryview(len(text).to_bytes(4, "little") + text))
    for part in parts:
        _write(stream, memoryview(part).cast("B"))


def _write(stream: Stream, data: memoryview) -> None:
    while data:
        data = data[stream.write(data) or 0 :]


def read_head(stream: Stream) -> dict[str, Any]:
    """Read the head of a frame; its parts are still to be read.

    Raises:
        BrokenFrameError: the other side is gone.
        ValueError: this is no head.
    """
    length = int.from_bytes(read_bytes(stream, 4), "little")
    if length > _LONGEST_HEAD:
        raise ValueError(f"a head of {length} bytes")
    try:
        head = json.loads(read_bytes(stream, length))
    except RecursionError:
        raise ValueError("a head that is too deep") from None
    if not isinstance(head, dict):
        raise ValueError("a head that is no object")  # noqa: TRY004 - it is no program's mistake
    return head


def read_bytes(stream: Stream, size: int) -> bytes:
    """Read so many bytes.

    Raises:
        BrokenFrameError: the other side is gone.
    """
    data = bytearray(size)
    _fill(stream, memoryview(data))
    return bytes(data)


def read_array(stream: Stream, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """Read the elements of an array, in C order.

    Raises:
        BrokenFrameError: the other side is gone.
    """
    array = np.empty(shape, dtype)
    _fill(stream, array.reshape(-1).view(np.uint8).data)
    return array


def _fill(stream: Stream, room: memoryview) -> None:
    while room:
        count = stream.readinto(room)
        if not count:
            raise BrokenFrameError("the other side is gone")
        room = room[count:]
