"""Fuzzing of tar shards: headers in all formats, whose checksums are right, and bytes as they come."""

import contextlib
import io
import tarfile
from collections.abc import Callable
from random import Random
from typing import Final

from ortcam.batch.sources.shards import members
from ortcam.errors import DatasetError
from tests.fuzz.limits import BreachError, budget

__all__ = ["change", "mended", "seeds", "try_on"]

_BLOCK: Final = tarfile.BLOCKSIZE
_SIZES: Final = (
    b"0000000000\0",
    b"77777777777\0",
    b"-0000001000\0",
    b"\x80" + bytes(10) + b"\x09",
    b"\xff" * 12,
    b" 12 \0",
)
_TYPES: Final = b"0\x001234567LKxgXSVDMNA~"
_RECORDS: Final = (b"20 path=a.png\n", b"12 size=512\n", b"99999999999 a=b\n", b"0 =\n", b"14 size=-512\n", b"6 size\n")


def try_on(data: bytes) -> None:
    """Walk the members.

    Raises:
        BreachError: a member lies outside the archive, or within an earlier one; or too much time or memory.
    """
    with budget(seconds=5, memory=64_000_000), contextlib.suppress(DatasetError):
        behind = _BLOCK
        for name, offset, size in members(io.BytesIO(data), "shard.tar"):
            if not (behind <= offset and size >= 0 and offset + size <= len(data)):
                raise BreachError(f"the member {name!r} at {offset} has {size} of {len(data)} bytes")
            behind = offset + size + _BLOCK


def seeds() -> list[bytes]:
    """Small archives in the three formats, with names of any length."""
    made = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=form) as archive:
            names = ["0.jpg", "k/\u732b.png"] + ([] if form == tarfile.USTAR_FORMAT else ["long" * 60 + ".jpg"])
            for number, name in enumerate(names):
                info = tarfile.TarInfo(name)
                info.size = 300 * number
                archive.addfile(info, io.BytesIO(bytes(info.size)))
        made.append(file.getvalue())
    return made


def change(data: bytes, random: Random, change_bytes: Callable[[bytes, int], bytes], longest: int) -> bytes:
    """Another archive: fields of a header or of the text behind it changed, cut off, or bytes as they come."""
    way = random.random()
    blocks = max(len(data) // _BLOCK, 1)
    at = random.randrange(blocks) * _BLOCK
    if way < 0.3:
        data = data[: at + 124] + random.choice(_SIZES) + data[at + 136 :]
    elif way < 0.5:
        data = data[: at + 156] + bytes([random.choice(_TYPES)]) + data[at + 157 :]
    elif way < 0.65:
        record = random.choice(_RECORDS)
        data = data[:at] + record + data[at + len(record) :]
    elif way < 0.75:
        data = data[: random.randrange(len(data) + 1)]
    else:
        data = change_bytes(data, longest)
    return mended(data)[:longest]


def mended(data: bytes) -> bytes:
    """The archive with the right checksum in each block that has the mark of a header."""
    fixed = bytearray(data)
    for at in range(0, len(fixed) - _BLOCK + 1, _BLOCK):
        if fixed[at + 257 : at + 262] == b"ustar":
            fixed[at + 148 : at + 156] = b" " * 8
            fixed[at + 148 : at + 156] = b"%06o\0 " % sum(fixed[at : at + _BLOCK])
    return bytes(fixed)
