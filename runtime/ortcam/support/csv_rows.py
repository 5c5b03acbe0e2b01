"""Rows of a CSV as spreadsheets write it: with commas, semicolons or tabs, and a header in any case."""

import csv
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, Final

__all__ = ["CsvRows"]

_DELIMITERS: Final = (",", ";", "\t")  # spreadsheets of some countries write the others


class CsvRows:
    r"""The rows of a CSV, one at a time, as `(line, {column: text})`. `line` is that of the row's end, from 1.

    A row that is short has None for what it lacks; one that is long has the key None for the rest.

    Args:
        lines: of the file, with their ends.

    Attributes:
        columns: names of the header, in lower case; empty if there is none.

    Raises:
        csv.Error: the header is none.

    Example:
        >>> rows = CsvRows(["File;Class\n", "a.jpg;cat\n"])
        >>> rows.columns, list(rows)
        (['file', 'class'], [(2, {'file': 'a.jpg', 'class': 'cat'})])
    """

    def __init__(self, lines: Iterable[str]) -> None:
        following = iter(lines)
        head = next(following, "")
        delimiter = max(_DELIMITERS, key=head.count)
        self._reader = csv.DictReader(itertools.chain([head], following), delimiter=delimiter)
        self.columns = [name.strip().lower() for name in self._reader.fieldnames or []]
        self._reader.fieldnames = self.columns

    def __iter__(self) -> Iterator[tuple[int, dict[str | Any, str | Any]]]:
        """The rows.

        Raises:
            csv.Error: a line that makes no sense.
        """
        for row in self._reader:
            yield self._reader.line_num, row
