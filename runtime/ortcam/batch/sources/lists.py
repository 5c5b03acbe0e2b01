"""Sources that are lists in text: one path per line, or CSV with a column `path`."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from ortcam.batch.items import FilePlace, Item, NoPlace, address
from ortcam.batch.sources.listing import Listing
from ortcam.batch.sources.manifest_rows import Folder, targets_of
from ortcam.batch.sources.source import FILE_COLUMNS, checked_ids, listed, reading
from ortcam.batch.storage import open_file, without_secrets
from ortcam.errors import DatasetError
from ortcam.support.csv_rows import CsvRows
from ortcam.support.terminal import as_text, printable

__all__ = ["ListFiles", "is_csv_name", "is_text_name"]

_TEXT: Final = (".txt", ".list", ".lst")
_CSV: Final = (".csv", ".tsv")
_LONGEST_LINE: Final = 1 << 20  # characters; no path is as long, and a file without line ends is no list
_IDS_AT_A_TIME: Final = 8192
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")  # which spreadsheets call "Unicode text"


def is_text_name(name: str) -> bool:
    """Tell whether a file is a list with one path per line."""
    return name.lower().endswith(_TEXT)


def is_csv_name(name: str) -> bool:
    """Tell whether a file is a CSV."""
    return name.lower().endswith(_CSV)


class ListFiles:
    """Lines of text files, or rows of CSVs: each names an image.

    The id is the value of the column `id`, else the path as it is written.

    Args:
        name: of INPUT.
        listing: of the files.
        storage_options: of fsspec.
        check: whether to read all of it once, to look for ids that come twice.

    Raises:
        DatasetError: a file cannot be read, or a CSV has no column `path`; or an id comes twice.
    """

    count: int | None = None

    def __init__(
        self, name: str, listing: Listing, storage_options: Mapping[str, Any] | None = None, *, check: bool = True
    ) -> None:
        self.name = name
        self.record: dict[str, Any] = {"input": name, "kind": "list"}
        self._listing = listing
        self._options = storage_options
        if check:
            self.count = checked_ids(name, self._ids)

    def items(self) -> Iterator[Item]:
        """As of `Source`."""
        for name in self._listing.names(lambda _: True):
            folder = Folder(self._listing.url(name))
            for id_, path, target, error in self._rows(name):
                if path is None:
                    yield Item(id_, "", NoPlace(error))
                else:
                    place = FilePlace(folder.url(path))
                    yield Item(id_, address(place), place, targets_of(target))

    def counted(self) -> int:
        """As of `Source`."""
        return sum(map(len, self._ids())) if self.count is None else self.count

    def _ids(self) -> Iterator[Sequence[str]]:
        ids: list[str] = []
        for name in self._listing.names(lambda _: True):
            for row in self._rows(name):
                ids.append(row[0])
                if len(ids) == _IDS_AT_A_TIME:
                    yield ids
                    ids = []
        yield ids

    def _rows(self, name: str) -> Iterator[tuple[str, str | None, str | None, str]]:
        """The id, path, target and error of each entry. With an error there is no path."""
        url = self._listing.url(name)
        shown = printable(without_secrets(url))
        with reading(shown), self._opened(url) as text:
            read = _csv_rows if is_csv_name(name) else _text_rows
            for line, id_, path, target, error in read(_lines(text, shown), shown):
                yield as_text(id_ or path or f"{self._listing.id(name)}:{line}"), path, target, error

    @contextmanager
    def _opened(self, url: str) -> Iterator[io.TextIOWrapper]:
        with open_file(url, self._options) as file:
            head = file.read(3)
            file.seek(0)
            if head[:2] in _UTF_16:
                yield io.TextIOWrapper(file, "utf-16", newline="")
            else:  # the name of a file need not be text
                yield io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")


def _lines(text: io.TextIOWrapper, shown: str) -> Iterator[str]:
    while line := text.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise DatasetError(
                f"{shown}: has a line of {_LONGEST_LINE} characters or more; accepted is a list of paths"
            )
        yield line


_Row = tuple[int, str | None, str | None, str | None, str]


def _text_rows(lines: Iterator[str], _: str) -> Iterator[_Row]:
    for number, line in enumerate(lines, 1):
        path = line.rstrip("\r\n")
        if path.strip():
            yield number, None, path, None, ""


def _csv_rows(lines: Iterator[str], shown: str) -> Iterator[_Row]:
    rows = CsvRows(lines)
    column = next((name for name in FILE_COLUMNS if name in rows.columns), None)
    if column is None:
        has = f"has the columns {listed(rows.columns)}" if any(rows.columns) else "is empty"
        raise DatasetError(f"{shown}: its first line {has}; accepted is a header with a column 'path'")
    for number, row in rows:
        id_, path, target = ((row.get(name) or "").strip() or None for name in ("id", column, "target"))
        extra = [cell for cell in row.get(None, ()) if cell.strip()]  # spreadsheets fill up short rows
        if not (id_ or path or target or extra):
            continue
        error = ""
        if extra:
            path, error = None, f"line {number} has more cells than the header; a path with a comma needs quotes"
        elif path is None:
            error = f"line {number} names no image"
        yield number, id_, path, target, error
