"""What a bomb is: one file, what has to come of it, and its budget."""

import dataclasses
import functools
import math
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

MB: Final = 10**6
LIMIT: Final = 25_000_000  # pixels
SIDE: Final = math.isqrt(LIMIT)  # of a square picture that the limit just admits
HUGE: Final = 13_376  # 178.9 million pixels when square: Pillow's limit, and once the default of ortcam

TOO_LARGE: Final = "pixels.*more than the limit"
BROKEN: Final = "damaged|truncated|cannot be decoded"
NOT_ACCEPTED: Final = "which is not accepted"
MANY: Final = 300_000  # of the smallest parts of a file: 2 to 4 MB


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bomb:
    """One file, what has to come of it, and its budget.

    Attributes:
        name: of the file.
        kind: what it tries.
        make: gives its bytes.
        refused: pattern in the message of the error; None where it has to be read.
        shape: of the pixels that are read; None where it has to be refused. With `refused` both are right.
        tail: zeros behind the bytes, which take no room on the disk.
        limit: max_pixels.
        memory: bytes; None for the bound of every picture, or where it is refused of 6 MB + 4 times the file.
        cpu: seconds.
        warns: pattern of the warning that has to come where it is read; None for no warning, "" for any or none.
        strict: whether damage is an error.
        given: as bytes, which lie in memory before anything is measured, and on no disk.
        bands: of the model that reads samples from it; 0 where it is read as a picture.
        slow: left to `make test-all`.
    """

    name: str
    kind: str
    make: Callable[[], bytes]
    refused: str | None = None
    shape: tuple[int, ...] | None = None
    tail: int = 0
    limit: int = LIMIT
    memory: int | None = None
    cpu: float | None = None
    warns: str | None = None
    strict: bool = False
    given: bool = False
    bands: int = 0
    slow: bool = False

    def memory_budget(self, size: int) -> int:
        """Bytes above what the process had, for a file of `size` bytes on the disk."""
        if self.memory is not None:
            return self.memory
        bound = 60 * MB + 12 * self.limit
        return bound if self.shape else min(bound, 6 * MB + 4 * size)

    def cpu_budget(self) -> float:
        """Seconds: 2 until a refusal; reading at most 10 times what libjpeg needs for a picture at the limit."""
        if self.cpu is not None:
            return self.cpu
        return 10.0 if self.shape else 2.0


def square(side: int = SIDE) -> tuple[int, int, int]:
    """The shape of a square picture."""
    return (side, side, 3)


def truncations(whole: bytes, marks: Sequence[bytes]) -> list[int]:
    """Places to cut: around each mark, and just before the end."""
    places = {1, 4, len(whole) - 1}
    for mark in marks:
        start = whole.index(mark)
        places |= {start, start + len(mark), start + len(mark) + 2}
    return sorted(place for place in places if 0 < place < len(whole))


def cut_bombs(
    form: str, whole: bytes, places: Iterable[int], refused: str = f"{BROKEN}|not an image"
) -> Iterator[Bomb]:
    """A good file of a format, cut short at each place."""
    for at in places:
        yield Bomb(name=f"{form}-cut-at-{at}.{form}", kind="truncation", make=lambda at=at: whole[:at], refused=refused)


def sparse_bomb(form: str, whole: bytes) -> Bomb:
    """A good file of a format, with zeros behind it that take no room on the disk."""
    return Bomb(
        name=f"{form}-sparse-100gb.{form}",
        kind="sparse file",
        make=lambda: whole,
        tail=10**11,
        refused="",
        memory=6 * MB,
    )


def deflated(unit: bytes, times: int) -> bytes:
    """A zlib stream of a unit repeated, at the cost of one block of it."""
    per_block = max(1, (1 << 20) // len(unit))
    blocks, rest = divmod(times, per_block)
    block, checksum = unit * per_block, 1
    if any(unit):
        for _ in range(blocks):
            checksum = zlib.adler32(block, checksum)
        checksum = zlib.adler32(unit * rest, checksum)
    else:
        checksum = len(unit) * times % 65_521 << 16 | 1
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = squeeze.compress(block) + squeeze.flush(zlib.Z_FULL_FLUSH)  # looks back on nothing
    last = zlib.compressobj(9, zlib.DEFLATED, -15)
    return b"\x78\xda" + packed * blocks + last.compress(unit * rest) + last.flush() + struct.pack(">I", checksum)


def many(unit: bytes, count: int) -> Callable[[], bytes]:
    """A unit again and again, made when it is called for."""
    return functools.partial(bytes.__mul__, unit, count)
