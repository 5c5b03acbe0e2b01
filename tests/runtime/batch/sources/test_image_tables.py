"""Parquet files that hold images: as `datasets` writes them, in any type of bytes, damaged, and hostile."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ortcam.batch.items import CellPlace, FilePlace, Item, NoPlace
from ortcam.batch.sources.fetching import Fetcher
from ortcam.batch.sources.opening import open_source
from ortcam.bundle.shipped import sample_images
from ortcam.errors import DatasetError, ImageError


def read(found: list[Item], fetcher: Fetcher | None = None) -> list[bytes]:
    fetcher = fetcher or Fetcher()
    return [fetcher.fetch(item.place) for item in found]


def cells(count: int) -> list[dict[str, Any]]:
    return [{"bytes": b"image %d" % number, "path": "same.jpg"} for number in range(count)]


@pytest.mark.long  # `datasets` takes seconds to import
def test_what_datasets_writes_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    files = [str(path) for path in sample_images()] * 3
    table = datasets.Dataset.from_dict({"image": files, "label": list(range(len(files)))})
    table = table.cast_column("image", datasets.Image())
    (tmp_path / "data").mkdir()
    table.to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", batch_size=2)
    found = list(open_source(tmp_path).items())
    assert read(found) == [Path(file).read_bytes() for file in files]
    assert [item.id for item in found] == [f"data/train-00000-of-00001.parquet:{row}" for row in range(len(files))]
    assert all(item.targets is None for item in found)  # a label is what the image shows, not what is asked for


def test_cells_are_found_in_any_order(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": cells(50)}), tmp_path / "t.parquet", row_group_size=20)
    source = open_source(f"{tmp_path}/*.parquet")
    found = list(source.items())
    assert (source.count, source.counted()) == (None, 50)
    assert found[45].place == CellPlace(f"{tmp_path}/t.parquet", 2, 5, "image")
    fetcher = Fetcher()
    for order in (range(50), range(49, -1, -1), range(0, 50, 7), (3, 3, 41, 3)):
        assert read([found[row] for row in order], fetcher) == [b"image %d" % row for row in order]
    fetcher.close()
    assert read(found[:1], fetcher) == [b"image 0"]


BYTES: dict[str, Callable[[list[bytes | None]], pa.Array]] = {
    "binary": lambda values: pa.array(values, pa.binary()),
    "large_binary": lambda values: pa.array(values, pa.large_binary()),
    "binary_view": lambda values: pa.array(values, pa.binary_view()),
    "dictionary": lambda values: pa.array(values, pa.binary()).dictionary_encode(),
}


@pytest.mark.parametrize("kind", BYTES)
def test_bytes_may_be_of_any_type(kind: str, tmp_path: Path) -> None:
    table = pa.table({"id": ["x", "y"], "content": BYTES[kind]([b"1", None]), "target": [3, None]})
    pq.write_table(table, tmp_path / "t.parquet")
    first, second = open_source(tmp_path / "t.parquet").items()
    assert (first.id, first.targets, second.id, second.targets) == ("x", (3,), "y", None)
    assert read([first]) == [b"1"]
    with pytest.raises(ImageError, match=r"t.parquet#.*row=1.*the cell is empty"):
        read([second])


def test_a_cell_without_bytes_names_a_file(tmp_path: Path) -> None:
    (image,) = sample_images()[:1]
    (tmp_path / "near.png").write_bytes(image.read_bytes())
    paths = [{"bytes": None, "path": path} for path in ("near.png", str(image), "gone.png", None)]
    pq.write_table(pa.table({"image": paths}), tmp_path / "t.parquet")
    near, far, gone, none = open_source(tmp_path / "t.parquet").items()
    assert read([near, far]) == [image.read_bytes()] * 2
    with pytest.raises(ImageError, match=r"gone.png' does not exist"):
        read([gone])
    with pytest.raises(ImageError, match="the cell is empty"):
        read([none])


def test_bytes_beside_a_path_are_no_images_unless_they_are_called_so(tmp_path: Path) -> None:
    table = pa.table({"path": ["a.jpg"], "hash": [b"1"], "thumbnail": [b"2"]})
    pq.write_table(table, tmp_path / "t.parquet")
    (item,) = open_source(tmp_path / "t.parquet").items()
    assert item.place == FilePlace(f"{tmp_path}/a.jpg")
    pq.write_table(table.append_column("image", pa.array([b"3"])), tmp_path / "t.parquet")
    (item,) = open_source(tmp_path / "t.parquet").items()
    assert (item.id, read([item])) == ("t.parquet:0", [b"3"])


@pytest.mark.long  # it writes megabytes
def test_a_cell_that_is_too_long_is_refused(tmp_path: Path) -> None:
    table = pa.table({"image": pa.array([bytes(31_000_000)], pa.binary())})
    pq.write_table(table, tmp_path / "t.parquet", use_dictionary=False, write_statistics=False)
    (item,) = open_source(tmp_path / "t.parquet").items()
    with pytest.raises(ImageError, match="has 31000000 bytes or more"):
        Fetcher(max_pixels=1).fetch(item.place)


@pytest.mark.long  # it writes megabytes
def test_a_file_that_unpacks_to_much_is_not_unpacked(tmp_path: Path) -> None:
    much = pa.table({"image": pa.array([bytes(40_000_000)], pa.binary())})
    pq.write_table(much, tmp_path / "t.parquet", use_dictionary=False, write_statistics=False, compression="zstd")
    assert (tmp_path / "t.parquet").stat().st_size < 100_000
    (item,) = open_source(tmp_path / "t.parquet").items()
    with pytest.raises(ImageError, match=r"column 'image' unpacks to 4\d{7} bytes in 1 rows; accepted are 30000006"):
        Fetcher(max_pixels=1, wait=lambda _: pytest.fail("it waits")).fetch(item.place)
    pq.write_table(pa.table({"path": ["x" * 6_000_000]}), tmp_path / "m.parquet", write_statistics=False)
    with pytest.raises(DatasetError, match=r"m.parquet: cannot be read: column 'path' unpacks to"):
        open_source(tmp_path / "m.parquet")


REFUSED = {
    "no such column": (pa.table({"a": [1], "b": ["x"]}), "has the columns a, b; accepted are a manifest"),
    "several": (pa.table({"a": [b"1"], "b": [b"2"]}), "the columns a, b hold bytes; accepted is one"),
    "nothing": (pa.table({}), r"has the columns \(none\)"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_table_without_images_is_refused(what: str, tmp_path: Path) -> None:
    table, why = REFUSED[what]
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(DatasetError, match=why):
        open_source(tmp_path / "t.parquet")


def test_a_file_that_is_no_parquet_is_refused_alone_and_a_failure_among_others(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": cells(2)}), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 not really PAR1")
    pq.write_table(pa.table({"other": [1]}), tmp_path / "c.parquet")
    with pytest.raises(DatasetError, match=r"b.parquet: cannot be read"):
        open_source(tmp_path / "b.parquet")
    found = list(open_source(tmp_path).items())
    assert [item.id for item in found] == ["a.parquet:0", "a.parquet:1", "b.parquet", "c.parquet"]
    assert isinstance(found[2].place, NoPlace)
    assert isinstance(found[3].place, NoPlace)
    assert "has the columns other" in found[3].place.error


def test_a_table_cut_or_changed_at_any_byte_gives_images_or_errors(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": cells(3), "id": ["x", "y", "z"]}), tmp_path / "good.parquet")
    good = (tmp_path / "good.parquet").read_bytes()
    damaged = [good[:end] for end in range(0, len(good), 61)]
    damaged += [good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :] for at in range(0, len(good), 17)]
    outcomes = set()
    for content in damaged:
        path = tmp_path / "t.parquet"
        path.write_bytes(content)
        try:
            found = list(open_source(path).items())
            fetched = 0
            for item in found:
                try:
                    Fetcher(wait=lambda _: None).fetch(item.place)
                    fetched += 1
                except ImageError:
                    pass
            outcomes.add("read" if fetched == 3 else "some failed")
        except DatasetError as error:
            outcomes.add("several lines" if "\n" in str(error) else "refused")
    assert outcomes == {"read", "some failed", "refused"}
