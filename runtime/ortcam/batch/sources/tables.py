"""Sources in Parquet: manifests with a column `path`, and tables that hold the bytes of images."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from ortcam.batch.items import CellPlace, FilePlace, Item, NoPlace, address
from ortcam.batch.sources.cells import check_cells
from ortcam.batch.sources.listing import Listing, lost
from ortcam.batch.sources.manifest_rows import Folder, targets_of
from ortcam.batch.sources.source import FILE_COLUMNS, checked_ids, listed, reading
from ortcam.batch.storage import open_file, without_secrets
from ortcam.errors import DatasetError
from ortcam.support.terminal import as_text, printable

__all__ = ["ParquetFiles", "is_parquet_name"]

_SUFFIXES: Final = (".parquet", ".parq", ".pq")
_ROWS_AT_A_TIME: Final = 8192
_LONGEST_CELL: Final = (
    1 << 16
)  # bytes of a path, an id or targets, on average: a guard against a file that unpacks to much


def is_parquet_name(name: str) -> bool:
    """Tell whether a file is a Parquet file that counts in a folder.

    Example:
        >>> is_parquet_name("train-00000-of-00002.parquet"), is_parquet_name("_metadata.parquet")
        (True, False)
    """
    return name.lower().endswith(_SUFFIXES) and not name.startswith((".", "_"))


@dataclass(frozen=True)
class _Roles:
    """Which column of a file is what."""

    path: str | None
    image: str | None
    id: str | None
    target: str | None

    @property
    def small(self) -> list[str]:
        """The columns that are read to list the rows."""
        return [name for name in (self.path if self.image is None else None, self.id, self.target) if name]


class ParquetFiles:
    """Rows of Parquet files: each names an image, or holds one.

    The id is the value of a column `id`. Without one it is the path of the image as the file has it, or, where the
    file holds images, `FILE:ROW`.

    Args:
        name: of INPUT.
        listing: of the files.
        storage_options: of fsspec.
        check: whether to look for ids that come twice, for which the column of ids is read.

    Raises:
        DatasetError: the first file cannot be read, or has no such column; or an id comes twice.
    """

    count: int | None = None

    def __init__(
        self, name: str, listing: Listing, storage_options: Mapping[str, Any] | None = None, *, check: bool = True
    ) -> None:
        self.name = name
        self._listing = listing
        self._options = storage_options
        found = list(itertools.islice(listing.names(is_parquet_name), 2))
        if not found:
            raise DatasetError(f"{printable(name)}: no Parquet files in it")
        first = found[0]
        self._only = first if len(found) == 1 else None
        with self._opened(first) as file:
            roles = _roles(file.schema_arrow, self._shown(first))
        self.record: dict[str, Any] = {
            "input": name,
            "kind": "images in Parquet" if roles.image else "Parquet manifest",
        }
        if check and (roles.image is None or roles.id):
            self.count = checked_ids(name, self._ids)

    def items(self) -> Iterator[Item]:
        """As of `Source`. A file that cannot be read is an item, too, unless it is the only one."""
        for name in self._listing.names(is_parquet_name):
            try:
                yield from self._items_of(name)
            except DatasetError as error:
                if name == self._only:
                    raise
                id_ = self._listing.id(name)
                yield Item(id_, id_, NoPlace(str(error)))
        yield from lost(self._listing)

    def counted(self) -> int:
        """As of `Source`."""
        if self.count is not None:
            return self.count
        total = 0
        for name in self._listing.names(is_parquet_name):
            try:
                with self._opened(name) as file:
                    total += file.metadata.num_rows
            except DatasetError:
                if name == self._only:
                    raise
                total += 1
        return total

    def _shown(self, name: str) -> str:
        return printable(without_secrets(self._listing.url(name)))

    @contextmanager
    def _opened(self, name: str) -> Iterator[pq.ParquetFile]:
        url = self._listing.url(name)
        with reading(self._shown(name)), open_file(url, self._options) as opened, pq.ParquetFile(opened) as file:
            yield file

    def _ids(self) -> Iterator[Sequence[str]]:
        for name in self._listing.names(is_parquet_name):
            try:
                with self._opened(name) as file:
                    roles = _roles(file.schema_arrow, self._shown(name))
                    column = roles.id or roles.path
                    first = 0
                    for group in range(file.metadata.num_row_groups):
                        for columns, rows in _batches(file, group, [column] if column else []):
                            yield self._texts(columns.get(column or ""), name, first, rows)
                            first += rows
            except DatasetError:
                if name == self._only:
                    raise
                yield [self._listing.id(name)]

    def _items_of(self, name: str) -> Iterator[Item]:
        url = self._listing.url(name)
        with self._opened(name) as file:
            roles = _roles(file.schema_arrow, self._shown(name))
            folder = Folder(url)
            first = 0
            for group in range(file.metadata.num_row_groups):
                first_of_group = first
                for columns, rows in _batches(file, group, roles.small):
                    ids = self._texts(columns.get(roles.id or roles.path or ""), name, first, rows)
                    targets = columns[roles.target].to_pylist() if roles.target else [None] * rows
                    if roles.image is None:
                        yield from _named(ids, columns[str(roles.path)], targets, folder)
                    else:
                        for index, (id_, target) in enumerate(zip(ids, targets, strict=True)):
                            place = CellPlace(url, group, first - first_of_group + index, roles.image)
                            yield Item(id_, address(place), place, targets_of(target))
                    first += rows

    def _texts(self, column: Any, name: str, first: int, rows: int = 0) -> list[str]:
        """The ids of rows: of a column, or by file and row where there is none."""
        values = [None] * rows if column is None else column.to_pylist()
        start = f"{self._listing.id(name)}:"
        return [f"{start}{first + row}" if text is None else _text(text) for row, text in enumerate(values)]


def _named(ids: Sequence[str], paths: Any, targets: Sequence[Any], folder: Folder) -> Iterator[Item]:
    for id_, path, target in zip(ids, paths.to_pylist(), targets, strict=True):
        if path:
            place = FilePlace(folder.url(path))
            yield Item(id_, address(place), place, targets_of(target))
        else:
            yield Item(id_, "", NoPlace("the row names no image"), None)


def _batches(file: pq.ParquetFile, group: int, names: Sequence[str]) -> Iterator[tuple[dict[str, Any], int]]:
    """Some columns of a row group, some rows at a time; no column is read where none is wanted."""
    if not names:
        left = file.metadata.row_group(group).num_rows
        while left > 0:
            yield {}, min(left, _ROWS_AT_A_TIME)
            left -= _ROWS_AT_A_TIME
        return
    for name in names:
        check_cells(file, group, name, _LONGEST_CELL)
    for batch in file.iter_batches(_ROWS_AT_A_TIME, row_groups=[group], columns=list(names)):
        yield {name: batch.column(name) for name in names}, len(batch)


def _roles(schema: pa.Schema, name: str) -> _Roles:
    """Find out what the columns are.

    Raises:
        DatasetError: none names an image or holds one, or an id is neither a text nor a whole number.
    """
    types = {field.name: _plain(field.type) for field in schema}
    holding = [column for column, kind in types.items() if _holds_images(kind)]
    naming = [column for column in FILE_COLUMNS if column in types and _is_text(types[column])]
    image = "image" if "image" in holding else holding[0] if len(holding) == 1 and not naming else None
    if image is None and len(holding) > 1 and not naming:
        raise DatasetError(
            f"{name}: the columns {listed(holding)} hold bytes; accepted is one, or one that is called 'image'"
        )
    if image is None and not naming:
        raise DatasetError(
            f"{name}: has the columns {listed(list(types)) or '(none)'}; accepted are a manifest with a text column "
            "'path', or a table with a column 'image' of bytes or of structs with 'bytes' and 'path'"
        )
    id_ = "id" if "id" in types else None
    if id_ and not (_is_text(types["id"]) or pa.types.is_integer(types["id"])):
        raise DatasetError(
            f"{name}: the column 'id' is of the type {types['id']}; accepted are texts and whole numbers"
        )
    return _Roles(naming[0] if naming else None, image, id_, "target" if "target" in types else None)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        content = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else None
        return content is not None and (_is_bytes(content) or pa.types.is_null(content))  # null: all are paths
    return _is_bytes(kind)


def _text(value: Any) -> str:
    return as_text(value if isinstance(value, str) else str(value))
