"""Lists of images as text, CSV and Parquet, in all the forms that people and programs write them."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ortcam.batch.items import FilePlace, Item, NoPlace
from ortcam.batch.sources.opening import open_source
from ortcam.batch.sources.source import checked_ids
from ortcam.errors import DatasetError


def items(path: Path, content: str | bytes, **options: Any) -> list[Item]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(open_source(path, **options).items())


def places(found: list[Item]) -> list[str]:
    return [item.place.url if isinstance(item.place, FilePlace) else "" for item in found]


def test_a_text_file_has_a_path_per_line(tmp_path: Path) -> None:
    found = items(tmp_path / "list.txt", "\ufeffa b.jpg\r\n\r\n/data/\u00e4.jpg\ns3://bucket/c.jpg\n  \nx/../d.jpg")
    assert [item.id for item in found] == ["a b.jpg", "/data/\u00e4.jpg", "s3://bucket/c.jpg", "x/../d.jpg"]
    beside = str(tmp_path)
    assert places(found) == [f"{beside}/a b.jpg", "/data/\u00e4.jpg", "s3://bucket/c.jpg", f"{beside}/x/../d.jpg"]
    assert open_source(tmp_path / "list.txt").count == 4


CSVS = {
    "commas": 'path,id,target\n"a,1.jpg",x,3\nb.jpg,y,\n',
    "semicolons and capitals": '\ufeffPath ;ID;Target\r\n"a,1.jpg";x;3\r\nb.jpg;y;;\r\n;;;\r\n',
    "tabs": "id\tfile\ttarget\nx\ta,1.jpg\t3\ny\tb.jpg\n",
    "as datasets names it": 'file_name,id,target\n"a,1.jpg",x,3\nb.jpg,y,\n',
    "other columns": 'n,path,id,target,note\n1,"a,1.jpg",x,3,"a\nb"\n2,b.jpg,y,,\n',
}


@pytest.mark.parametrize("form", CSVS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_csv_is_read_as_spreadsheets_write_it(form: str, encoding: str, tmp_path: Path) -> None:
    found = items(
        tmp_path / "list.csv", CSVS[form].removeprefix("\ufeff" if encoding == "utf-16" else "").encode(encoding)
    )
    assert [(item.id, item.targets) for item in found] == [("x", ("3",)), ("y", None)]
    assert places(found) == [f"{tmp_path}/a,1.jpg", f"{tmp_path}/b.jpg"]


def test_a_line_that_names_no_image_is_a_failure_of_its_own(tmp_path: Path) -> None:
    first, second, third = items(tmp_path / "list.csv", "id,path\nx,\n,a,1.jpg\n,b.jpg\n")
    assert (first.id, first.place) == ("x", NoPlace("line 2 names no image"))
    assert isinstance(second.place, NoPlace)
    assert (second.id, "more cells than the header" in second.place.error) == ("list.csv:3", True)
    assert (third.id, places([third])) == ("b.jpg", [f"{tmp_path}/b.jpg"])


@pytest.mark.skipif(os.name == "nt", reason="file names are text on Windows")
def test_names_that_are_no_text_are_found(tmp_path: Path) -> None:
    (item,) = items(tmp_path / "list.txt", b"caf\xe9.jpg\n")
    assert item.id == r"caf\xe9.jpg"
    assert places([item]) == [f"{tmp_path}/caf\udce9.jpg"]


def test_images_lie_beside_a_manifest_or_in_the_folder_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    found = items(tmp_path / "photos.csv", "path\na.jpg\nphotos/a.jpg\nb.jpg\n")
    assert places(found) == [f"{tmp_path}/photos/a.jpg", f"{tmp_path}/photos/a.jpg", f"{tmp_path}/b.jpg"]


def test_several_targets_and_labels(tmp_path: Path) -> None:
    (item,) = items(tmp_path / "list.csv", 'path,target\na.jpg,"3; sea snake;label:7"\n')
    assert item.targets == ("3", "sea snake", "label:7")


REFUSED = {
    "a.csv": (
        "name,class\nx,1\n",
        "its first line has the columns name, class; accepted is a header with a column 'path'",
    ),
    "b.csv": ("", "is empty"),
    "c.csv": ("path,id\na.jpg,1\nb.jpg,2\nc.jpg,1\n", "the id '1' comes twice"),
    "d.txt": ("a.jpg\nb.jpg\na.jpg\n", "the id 'a.jpg' comes twice"),
    "e.txt": ("x" * (1 << 20), "has a line of 1048576 characters or more"),
    "f.csv": ('path\n"' + "x\n" * 100_000, "field larger than field limit"),
    "g.csv": ("\ufffe".encode("utf-16-le") + b"\xff" * 5, "cannot be read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_list_that_makes_no_sense_is_refused_before_any_image(name: str, tmp_path: Path) -> None:
    content, why = REFUSED[name]
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DatasetError, match=why) as caught:
        open_source(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


TEXTS = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
TARGETS: dict[str, tuple[Any, list[Any]]] = {
    "whole numbers": (pa.array([3, None], pa.int16()), [(3,), None]),
    "what pandas makes of them": (pa.array([3.0, float("nan")]), [(3,), None]),
    "labels": (pa.array(["sea snake", ""]).dictionary_encode(), [("sea snake",), None]),
    "several": (pa.array([[3, 4], []]), [(3, 4), None]),
}


@pytest.mark.parametrize("text", TEXTS, ids=str)
def test_a_parquet_manifest_may_have_texts_of_any_type(text: pa.DataType, tmp_path: Path) -> None:
    def column(values: list[str | None]) -> pa.Array:
        return pa.array(values).dictionary_encode() if pa.types.is_dictionary(text) else pa.array(values, text)

    table = pa.table({"id": column(["x", None]), "n": [1, 2], "path": column(["a.jpg", "\u732b.jpg"])})
    pq.write_table(table, tmp_path / "m.parquet")
    source = open_source(tmp_path / "m.parquet")
    found = list(source.items())
    assert [item.id for item in found] == ["x", "m.parquet:1"]
    assert places(found) == [f"{tmp_path}/a.jpg", f"{tmp_path}/\u732b.jpg"]
    assert source.count == 2


@pytest.mark.parametrize("what", TARGETS)
def test_a_parquet_manifest_may_have_targets_of_any_type(what: str, tmp_path: Path) -> None:
    column, expected = TARGETS[what]
    pq.write_table(pa.table({"path": ["a.jpg", "b.jpg"], "id": [7, 8], "target": column}), tmp_path / "m.parquet")
    found = list(open_source(tmp_path / "m.parquet").items())
    assert [(item.id, item.targets) for item in found] == [("7", expected[0]), ("8", expected[1])]


def test_a_parquet_manifest_of_many_row_groups_and_files_keeps_its_rows(tmp_path: Path) -> None:
    for name in ("b", "a"):
        paths = [f"{name}{row}.jpg" if row != 5 else None for row in range(10)]
        pq.write_table(pa.table({"path": paths}), tmp_path / f"{name}.parquet", row_group_size=3)
    found = list(open_source(tmp_path).items())
    ids = [f"{name}{row}.jpg" if row != 5 else f"{name}.parquet:5" for name in "ab" for row in range(10)]
    assert [item.id for item in found] == ids
    assert found[5].place == NoPlace("the row names no image")


def test_ids_are_looked_at_before_any_image(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a.jpg", "b.jpg"], "id": ["x", "x"]}), tmp_path / "m.parquet")
    with pytest.raises(DatasetError, match="the id 'x' comes twice"):
        open_source(tmp_path / "m.parquet")
    pq.write_table(pa.table({"path": ["a.jpg"], "id": [1.5]}), tmp_path / "m.parquet")
    with pytest.raises(DatasetError, match="'id' is of the type double"):
        open_source(tmp_path / "m.parquet")


def test_two_ids_with_one_hash_are_two_ids() -> None:
    class Clash(str):
        __slots__ = ()

        def __hash__(self) -> int:
            return 1

    assert checked_ids("m", lambda: iter([[Clash("a")], [Clash("b")]])) == 2
    with pytest.raises(DatasetError, match="'b' comes twice"):
        checked_ids("m", lambda: iter([[Clash("a"), Clash("b")], [Clash("b")]]))
