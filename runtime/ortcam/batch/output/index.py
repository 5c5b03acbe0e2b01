"""`Index`: in which part an image is, for millions of images."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["Index"]

_HASH: Final = 8  # bytes: two ids may share a hash, so all parts of a hash are searched


class Index:
    """From ids to the places of the parts that may have them: 12 bytes per id.

    Example:
        >>> index = Index([pa.array(["a", "b"]), pa.array(["c"])])
        >>> len(index), list(index.places("c")), list(index.places("d"))
        (3, [1], [])
    """

    def __init__(self, parts: Iterable[pa.Array]) -> None:
        """Read ids.

        Args:
            parts: the ids of each part, strings without nulls, each once.
        """
        hashes = [_hashes(ids.to_pylist()) for ids in parts]
        places = [np.full(len(some), place, np.int32) for place, some in enumerate(hashes)]
        both = np.concatenate(hashes or [np.empty(0, np.uint64)])
        order = np.argsort(both, kind="stable")
        self._hashes = both[order]
        self._places = np.concatenate(places or [np.empty(0, np.int32)])[order]

    def __len__(self) -> int:
        return len(self._hashes)

    def places(self, id_: str) -> Iterator[int]:
        """The places of the parts that may have an id, the first part being 0."""
        wanted = _hashes([id_])[0]
        first, last = (int(np.searchsorted(self._hashes, wanted, side)) for side in ("left", "right"))
        yield from dict.fromkeys(self._places[first:last].tolist())


def _hashes(ids: Iterable[str]) -> NDArray[np.uint64]:
    found = [hashlib.blake2b(id_.encode("utf-8", "surrogatepass"), digest_size=_HASH).digest() for id_ in ids]
    return np.frombuffer(b"".join(found), np.uint64)
