"""Items: what is to be explained, one per image, and where its bytes are. They travel as an Arrow table, too."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from ortcam.support.terminal import as_text

__all__ = [
    "ITEM_SCHEMA",
    "CellPlace",
    "FilePlace",
    "Item",
    "MemberPlace",
    "NoPlace",
    "Place",
    "address",
    "items_of",
    "items_table",
    "place_of",
]


@dataclass(frozen=True, slots=True)
class FilePlace:
    """A file that is one image.

    Attributes:
        url: an absolute local path, or a URL of fsspec, such as s3://bucket/cat.jpg.
    """

    url: str


@dataclass(frozen=True, slots=True)
class CellPlace:
    """A cell of a Parquet file: the bytes of an image, or a struct with `bytes` and `path`.

    Attributes:
        url: of the Parquet file.
        row_group: its row group, from 0.
        row: within the row group, from 0.
        column: name of the column.
    """

    url: str
    row_group: int
    row: int
    column: str


@dataclass(frozen=True, slots=True)
class MemberPlace:
    """A member of a tar archive that is not compressed.

    Attributes:
        url: of the archive.
        offset: of the image's first byte.
        size: in bytes.
    """

    url: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class NoPlace:
    """Something in INPUT that gives no image, such as a shard that ends too early. Its row says so.

    Attributes:
        error: what is wrong with it, one sentence.
    """

    error: str


Place = FilePlace | CellPlace | MemberPlace | NoPlace


@dataclass(frozen=True, slots=True)
class Item:
    """One image to explain.

    Attributes:
        id: unique within INPUT, and the same whenever INPUT is read.
        path: where the image is, for people and for `place_of`.
        place: where its bytes are.
        targets: class indices or labels to explain; None: those that the run explains.
    """

    id: str
    path: str
    place: Place
    targets: tuple[int | str, ...] | None = None


# `url` is binary, because the name of a file need not be text; `targets` is JSON.
ITEM_SCHEMA: Final = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("kind", pa.int8(), nullable=False),
        pa.field("url", pa.binary(), nullable=False),
        pa.field("row_group", pa.int32(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("column", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("targets", pa.string()),
    ]
)

_FILE, _CELL, _MEMBER, _NONE = range(4)
_CELL_ADDRESS: Final = re.compile(r"(.*)#row_group=(\d{1,9})&row=(\d{1,18})&column=(.*)", re.DOTALL | re.ASCII)
_MEMBER_ADDRESS: Final = re.compile(r"(.*)#offset=(\d{1,18})&size=(\d{1,18})", re.DOTALL | re.ASCII)


def address(place: Place) -> str:
    """Write a place as one line of text: what the column `path` of OUTPUT has.

    Example:
        >>> address(MemberPlace("/data/000.tar", 512, 1234))
        '/data/000.tar#offset=512&size=1234'
    """
    match place:
        case FilePlace(url):
            return as_text(url)
        case CellPlace(url, row_group, row, column):
            return as_text(f"{url}#row_group={row_group}&row={row}&column={column}")
        case MemberPlace(url, offset, size):
            return as_text(f"{url}#offset={offset}&size={size}")
        case NoPlace():
            return ""


def place_of(text: str) -> Place:
    """Find the place that `address` wrote. The name of a file that is no text cannot be found again.

    Example:
        >>> place_of("s3://bucket/cat.jpg")
        FilePlace(url='s3://bucket/cat.jpg')
    """
    if found := _CELL_ADDRESS.fullmatch(text):
        return CellPlace(found[1], int(found[2]), int(found[3]), found[4])
    if found := _MEMBER_ADDRESS.fullmatch(text):
        return MemberPlace(found[1], int(found[2]), int(found[3]))
    return FilePlace(text) if text else NoPlace("the row has no path")


def items_table(items: Sequence[Item]) -> pa.Table:
    """Items as a table of `ITEM_SCHEMA`."""
    places = [_packed(item.place) for item in items]
    columns: list[Any] = [[item.id for item in items], [item.path for item in items]]
    columns += [list(column) for column in zip(*places, strict=True)] if places else [[] for _ in range(7)]
    columns.append([None if item.targets is None else json.dumps(item.targets) for item in items])
    arrays = [pa.array(column, field.type) for column, field in zip(columns, ITEM_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=ITEM_SCHEMA)


def items_of(table: pa.Table | pa.RecordBatch) -> Iterator[Item]:
    """The items of a table that `items_table` made, in its order. Other columns are ignored."""
    columns = [table.column(field.name).to_pylist() for field in ITEM_SCHEMA]
    for id_, path, kind, url, row_group, row, column, offset, size, targets in zip(*columns, strict=True):
        place = _unpacked(kind, url.decode("utf-8", "surrogateescape"), row_group, row, column, offset, size)
        yield Item(id_, path, place, None if targets is None else tuple(json.loads(targets)))


def _packed(place: Place) -> tuple[int, bytes, int, int, str, int, int]:
    match place:
        case FilePlace(url):
            return _FILE, _bytes(url), 0, 0, "", 0, 0
        case CellPlace(url, row_group, row, column):
            return _CELL, _bytes(url), row_group, row, column, 0, 0
        case MemberPlace(url, offset, size):
            return _MEMBER, _bytes(url), 0, 0, "", offset, size
        case NoPlace(error):
            return _NONE, _bytes(error), 0, 0, "", 0, 0


def _bytes(url: str) -> bytes:
    return url.encode("utf-8", "surrogateescape")


def _unpacked(kind: int, url: str, row_group: int, row: int, column: str, offset: int, size: int) -> Place:
    if kind == _FILE:
        return FilePlace(url)
    if kind == _CELL:
        return CellPlace(url, row_group, row, column)
    return MemberPlace(url, offset, size) if kind == _MEMBER else NoPlace(url)
