"""`IdSet`: millions of ids in little memory, as sorted digests of 16 bytes."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["CHUNK", "IdSet"]

_DIGEST: Final = 16  # bytes: that any two of 10^9 ids have the same digest is as likely as 1 in 10^21
_KIND: Final = f"S{_DIGEST}"  # numpy sorts it in place; a scalar of it would lose zeros at its end, an array does not
CHUNK: Final = 1 << 20  # ids that are moved or compared together


class IdSet:
    """A set of ids that does not change. It takes 16 bytes per id, and 16 MB more while it is made.

    Example:
        >>> found = IdSet([pa.array(["a", "b"]), pa.array(["b"])])
        >>> len(found), "a" in found, "c" in found
        (2, True, False)
    """

    def __init__(self, arrays: Iterable[pa.Array] = ()) -> None:
        """Read ids. An id may come several times.

        Args:
            arrays: of strings, without nulls.
        """
        chunks: list[NDArray[np.bytes_]] = []
        waiting = bytearray()
        for array in arrays:
            for start in range(0, len(array), CHUNK):
                waiting += _digests(array[start : start + CHUNK].cast(pa.large_binary()).to_pylist())
                if len(waiting) >= CHUNK * _DIGEST:
                    chunks.append(np.frombuffer(bytes(waiting), _KIND))
                    waiting.clear()
        chunks.append(np.frombuffer(bytes(waiting), _KIND))
        self._sorted: NDArray[Any] = np.empty(sum(map(len, chunks)), _KIND)  # a page takes memory once it is written to
        end = 0
        while chunks:
            chunk = chunks.pop()
            self._sorted[end : end + len(chunk)] = chunk
            end += len(chunk)
        self._sorted.sort()
        self._count = int(end > 0) + sum(
            int((self._sorted[at + 1 : at + 1 + CHUNK] != self._sorted[at : min(at + CHUNK, end - 1)]).sum())
            for at in range(0, end - 1, CHUNK)
        )

    def __len__(self) -> int:
        return self._count

    def __contains__(self, name: str) -> bool:
        return bool(self.holds([name])[0])

    def holds(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """Which ids are in the set: bool [n]. Thousands together are much faster than one by one."""
        asked = np.frombuffer(_digests([name.encode("utf-8", "surrogatepass") for name in names]), _KIND)
        held = np.zeros(len(asked), np.bool_)
        if len(self._sorted):
            order = np.argsort(asked)  # neighbours are looked up in the same pages
            places = np.searchsorted(self._sorted, asked[order])
            held[order] = self._sorted[np.minimum(places, len(self._sorted) - 1)] == asked[order]
        return held


def _digests(names: Iterable[bytes]) -> bytes:
    """Digests of ids, one behind the other."""
    return b"".join([hashlib.blake2b(name, digest_size=_DIGEST).digest() for name in names])
