"""The manifest of a batch on Ray: the items that are left, numbered, as Parquet files that Ray Data reads."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ortcam.batch.items import Item, items_table
from ortcam.errors import OrtcamError

__all__ = ["NUMBER", "Numbers", "write_manifest"]

NUMBER: Final = "number"  # column: of the item in this run, from 0
_ROWS: Final = 10_000  # of a file, which one task reads


def write_manifest(items: Iterable[Item], folder: Path) -> int:
    """Write items as they come, so that no more than a file of them is in memory.

    Args:
        items: that are left.
        folder: exists, and is empty.

    Returns:
        How many there are.

    Raises:
        OrtcamError: the folder cannot be written to.
    """
    iterator, written = iter(items), 0
    for number in itertools.count():
        some = list(itertools.islice(iterator, _ROWS))
        if not some:
            return written
        rows = items_table(some).append_column(NUMBER, pa.array(np.arange(written, written + len(some))))
        try:
            pq.write_table(rows, folder / f"items-{number:06}.parquet", compression="zstd")
        except OSError as error:
            raise OrtcamError(f"{folder}: the list of images cannot be put there: {error.strerror or error}") from None
        written += len(some)
    return written


@dataclass
class Numbers:
    """Which items have come back, one bit each: none is lost and none comes twice, whatever Ray has to repeat.

    Attributes:
        left: how many have not come back.
    """

    left: int
    _bits: NDArray[np.uint8]

    @classmethod
    def of(cls, count: int) -> "Numbers":
        """Nothing has come back."""
        return cls(count, np.zeros(-(-count // 8), np.uint8))

    def is_new(self, number: Any) -> bool:
        """Whether an item comes back for the first time; it has come back then."""
        place, bit = divmod(int(number), 8)
        if self._bits[place] >> bit & 1:
            return False
        self._bits[place] |= 1 << bit
        self.left -= 1
        return True
