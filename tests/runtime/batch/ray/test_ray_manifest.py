"""The manifest of a batch on Ray, and the account of what came back."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ortcam.batch.items import FilePlace, Item, items_of
from ortcam.batch.ray.manifest import NUMBER, Numbers, write_manifest
from ortcam.errors import OrtcamError


def items(count: int) -> list[Item]:
    return [
        Item(f"ä {n}.png", f"/x/ä {n}.png", FilePlace(f"/x/ä {n}.png"), (n, "cat") if n % 2 else None)
        for n in range(count)
    ]


@pytest.mark.slow
@pytest.mark.whole
@pytest.mark.parametrize("count", [0, 1, 10_000, 10_001])
def test_a_manifest_holds_all_items_with_their_numbers(count: int, tmp_path: Path) -> None:
    written = items(count)
    assert write_manifest(iter(written), tmp_path) == count
    tables = [pq.read_table(path) for path in sorted(tmp_path.iterdir())]
    assert [number for table in tables for number in table[NUMBER].to_pylist()] == list(range(count))
    assert [item for table in tables for item in items_of(table)] == written


def test_a_manifest_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OrtcamError, match=r"the list of images cannot be put there: .*No such file"):
        write_manifest(iter(items(1)), tmp_path / "gone")


def test_each_number_is_new_once() -> None:
    numbers = Numbers.of(19)
    assert [number for number in (18, 3, 18, 0, 3, 7, 8) if numbers.is_new(number)] == [18, 3, 0, 7, 8]
    assert numbers.left == 14
    assert [number for number in range(19) if numbers.is_new(number)] == [1, 2, 4, 5, 6, *range(9, 18)]
    assert numbers.left == 0
