"""The one array of an image in NumPy's .npz format: a ZIP archive, read here so that a bomb costs nothing."""

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.errors import ImageError
from ortcam.images.arrays.npy import LONGEST_HEADER, NpyHeader, npy_header
from ortcam.support.terminal import printable

__all__ = ["is_npz", "read_npz"]

_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_END: Final = struct.Struct("<4s4H2IH")
_LONGEST_COMMENT: Final = 65535
_MOST_MEMBERS: Final = 100
_PREFERRED: Final = ("image", "arr_0")
_STORED, _DEFLATED = 0, 8
_BIG: Final = 0xFFFFFFFF
_SLICE: Final = 1 << 16
_SHOWN: Final = 5


@dataclass(frozen=True)
class _Member:
    """A file of the archive, as the archive's directory has it."""

    name: str
    method: int
    encrypted: bool
    checksum: int
    packed: int
    size: int
    offset: int


def is_npz(head: bytes) -> bool:
    """Whether a file begins as `np.savez` writes it: a ZIP archive whose first file is an array."""
    if not head.startswith(b"PK\3\4") or len(head) < _LOCAL.size:
        return False
    length = _LOCAL.unpack_from(head)[9]
    return head[_LOCAL.size : _LOCAL.size + length].endswith(b".npy")


def read_npz(data: bytes, name: str, check: Callable[[NpyHeader, str], None]) -> tuple[NDArray[Any], str]:
    """The image in a .npz file: its only array, or the one named `image` or `arr_0`.

    Args:
        data: of the file.
        name: of it, for messages.
        check: called with the header of the array and its name before it is inflated.

    Returns:
        The array, a view of the file's bytes where they are not compressed, and its name.

    Raises:
        ImageError: no such array, several that may be meant, a damaged archive; or as `check` does.
    """
    try:
        members = list(_members(data, name))
        member = _chosen([member for member in members if member.name.endswith(".npy")], name)
        name = f"array {printable(member.name.removesuffix('.npy'))!r} of {name}"
        packed = _packed(data, member, name)
    except struct.error:
        raise ImageError(f"{name} is truncated or damaged: it is no whole ZIP archive") from None
    head, unpacker = _head(packed, member, name)
    header = npy_header(head, name)
    if header.start + header.size != member.size:
        raise ImageError(
            f"{name} is damaged: of {header.size} bytes of numbers it has {max(member.size - header.start, 0)}"
        )
    check(header, name)
    if unpacker is None:
        raw = packed
        if zlib.crc32(raw) != member.checksum:
            raise ImageError(f"{name} is damaged: its checksum does not match")
    else:
        raw = memoryview(_inflated(packed, member, name))
    values = np.frombuffer(raw, header.dtype, offset=header.start)
    return values.reshape(header.shape, order="F" if header.columns_first else "C"), name


def _members(data: bytes, name: str) -> Iterator[_Member]:
    at = data.rfind(b"PK\5\6", max(0, len(data) - _LONGEST_COMMENT - _END.size))
    if at < 0:
        raise struct.error
    _, _, _, _, count, _, position, _ = _END.unpack_from(data, at)
    if count > _MOST_MEMBERS:
        raise ImageError(f"{name} is an archive of {count} files; accepted are at most {_MOST_MEMBERS}")
    for _ in range(count):
        if position > len(data):
            raise struct.error
        (mark, _, _, flags, method, _, _, checksum, packed, size, named, extra, comment, _, _, _, offset) = (
            _CENTRAL.unpack_from(data, position)
        )
        if mark != b"PK\1\2":
            raise struct.error
        position += _CENTRAL.size
        text = data[position : position + named].decode("utf-8", "replace")
        position += named + extra + comment
        yield _Member(text, method, bool(flags & 1), checksum, packed, size, offset)


def _chosen(members: list[_Member], name: str) -> _Member:
    if len(members) == 1:
        return members[0]
    for wanted in _PREFERRED:
        named = [member for member in members if member.name == f"{wanted}.npy"]
        if len(named) == 1:
            return named[0]
    if not members:
        raise ImageError(f"{name} has no array: accepted is a .npz file with one, or with one named image")
    shown = ", ".join(repr(printable(member.name.removesuffix(".npy")[:40])) for member in members[:_SHOWN])
    more = ", ..." if len(members) > _SHOWN else ""
    raise ImageError(
        f"{name} has {len(members)} arrays ({shown}{more}): accepted is a .npz file with one, or with one named image"
    )


def _packed(data: bytes, member: _Member, name: str) -> memoryview:
    """The bytes of a member as they are stored."""
    if member.encrypted or member.method not in {_STORED, _DEFLATED}:
        how = "encrypted" if member.encrypted else f"compressed by method {member.method}"
        raise ImageError(f"{name} is {how}; accepted is what np.savez and np.savez_compressed write")
    if _BIG in {member.size, member.packed, member.offset}:
        raise ImageError(f"{name} has 4 GB or more; accepted are smaller arrays")
    if member.offset > len(data):
        raise struct.error
    mark, *_, named, extra = _LOCAL.unpack_from(data, member.offset)
    start = member.offset + _LOCAL.size + named + extra
    if mark != b"PK\3\4" or start + member.packed > len(data):
        raise struct.error
    if member.method == _STORED and member.packed != member.size:
        raise ImageError(f"{name} is damaged: its archive gives two sizes for it")
    return memoryview(data)[start : start + member.packed]


def _head(packed: memoryview, member: _Member, name: str) -> tuple[bytes, bool | None]:
    """The bytes that a member begins with, enough for the header, and whether it is to be inflated (else None)."""
    if member.method == _STORED:
        return bytes(packed[:LONGEST_HEADER]), None
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed[:_SLICE], LONGEST_HEADER), True
    except zlib.error as error:
        raise ImageError(f"{name} is damaged: {error}") from None


def _inflated(packed: memoryview, member: _Member, name: str) -> bytearray:
    """All bytes of a member, as many as its directory says."""
    whole, filled, checksum = bytearray(member.size), 0, 0
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for first in range(0, len(packed), _SLICE):
            rest: bytes | memoryview = packed[first : first + _SLICE]
            while rest and filled < member.size:
                made = inflate.decompress(rest, min(member.size - filled, 1 << 20))
                whole[filled : filled + len(made)] = made
                filled += len(made)
                checksum = zlib.crc32(made, checksum)
                rest = inflate.unconsumed_tail
                if not made and inflate.eof:
                    break
    except zlib.error as error:
        raise ImageError(f"{name} is damaged: {error}") from None
    if filled < member.size or checksum != member.checksum:
        raise ImageError(f"{name} is damaged: of {member.size} bytes {filled} are there, or their checksum is another")
    return whole
