"""Cells of Parquet files: read forward, a few at a time, and never unpacked to more than images have."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from ortcam.batch.items import CellPlace
from ortcam.batch.storage import open_file

__all__ = ["Column", "check_cells"]

_ROWS_AT_A_TIME: Final = 16  # what is in memory, beside the page that is unpacked
_READ_AT_A_TIME: Final = 4 << 20  # bytes of the file


def check_cells(file: pq.ParquetFile, group: int, column: str, most: int) -> None:
    """Refuse a column of a row group that unpacks to more than its cells may have, by what the file says itself.

    Args:
        file: that is open.
        group: the row group.
        column: by its name; of a struct all of it.
        most: bytes that a cell may have on average.

    Raises:
        ArrowInvalid: it does.
    """
    described = file.metadata.row_group(group)
    chunks = [described.column(index) for index in range(described.num_columns)]
    size = sum(
        chunk.total_uncompressed_size
        for chunk in chunks
        if chunk.path_in_schema == column or chunk.path_in_schema.startswith(f"{column}.")
    )
    if size > described.num_rows * most + _READ_AT_A_TIME:
        rows = described.num_rows
        raise pa.ArrowInvalid(f"column {column!r} unpacks to {size} bytes in {rows} rows; accepted are {most} per row")


class Column:
    """The cells of a column in one row group, read from its first row on, some at a time.

    Args:
        place: a cell of the row group.
        options: storage options.
        most: bytes that an image may have.

    Raises:
        OSError, ArrowInvalid: the file cannot be read as Parquet, or unpacks to more.
    """

    def __init__(self, place: CellPlace, options: Mapping[str, Any] | None, most: int) -> None:
        self._of = (place.url, place.row_group, place.column)
        self._rows: Any = None
        self._first = 0
        self._file = open_file(place.url, options)
        try:
            parquet = pq.ParquetFile(self._file, buffer_size=_READ_AT_A_TIME)
            check_cells(parquet, place.row_group, place.column, most)
            self._batches: Iterator[pa.RecordBatch] = parquet.iter_batches(
                batch_size=_ROWS_AT_A_TIME, row_groups=[place.row_group], columns=[place.column]
            )
        except BaseException:
            self._file.close()
            raise

    def is_before(self, place: CellPlace) -> bool:
        """Whether a cell is in this row group, and not behind what is read."""
        return self._of == (place.url, place.row_group, place.column) and place.row >= self._first

    def value(self, row: int) -> Any:
        """The value of a row at or behind the first one in memory.

        Raises:
            IndexError: there is no such row.
        """
        while self._rows is None or row >= self._first + len(self._rows):
            self._first += 0 if self._rows is None else len(self._rows)
            batch = next(self._batches, None)
            if batch is None:
                raise IndexError(f"there is no row {row}")
            self._rows = batch.column(0)
        return self._rows[row - self._first].as_py()

    def close(self) -> None:
        """Close the file."""
        self._rows = None
        self._file.close()
