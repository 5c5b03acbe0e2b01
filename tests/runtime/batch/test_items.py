"""Items travel as a table and come back as they were; a path leads back to its image."""

import pyarrow as pa
import pytest

from ortcam.batch.items import (
    ITEM_SCHEMA,
    CellPlace,
    FilePlace,
    Item,
    MemberPlace,
    NoPlace,
    Place,
    address,
    items_of,
    items_table,
    place_of,
)

PLACES = [
    FilePlace("/data/cat.jpg"),
    FilePlace("s3://bucket/a b/caf\u00e9#1.jpg"),
    CellPlace("/data/t.parquet", 3, 12, "my image"),
    MemberPlace("s3://bucket/000.tar", 1536, 20_000_000_000),
]


def test_a_table_gives_the_items_back() -> None:
    unreadable = FilePlace("/data/caf\udce9.jpg")  # the name is no text
    places: list[Place] = [*PLACES, unreadable, NoPlace("ends too early")]
    targets = [None, (3,), ("cat", 7), None, None, None]
    items = [Item(str(n), address(place), place, targets[n]) for n, place in enumerate(places)]
    table = items_table(items)
    assert table.schema.equals(ITEM_SCHEMA)
    assert list(items_of(table)) == items
    assert list(items_of(table.append_column("more", pa.array(range(6))).to_batches()[0])) == items
    assert list(items_of(items_table([]))) == []


@pytest.mark.parametrize("place", PLACES, ids=lambda place: type(place).__name__)
def test_a_path_leads_back_to_the_place(place: Place) -> None:
    assert place_of(address(place)) == place


def test_a_row_without_a_path_says_so() -> None:
    assert place_of("") == NoPlace("the row has no path")
