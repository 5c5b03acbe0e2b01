"""What others read: pandas, Polars, DuckDB and `datasets` find the same values, nulls and overlays in the parts."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests.runtime.batch.output.test_parts import RECORD

from ortcam.batch.output.parts import Output, PartWriter
from ortcam.batch.output.rows import Row, schema

pytestmark = pytest.mark.long

SHAPE, FULL = (2, 3), (4, 6)
LABELS = ["dog", "sea snake", "Käse"]
Rows = list[dict[str, Any]]


def _image(red: int) -> bytes:
    return cv2.imencode(".jpg", np.full((8, 8, 3), (0, 0, red), np.uint8))[1].tobytes()


def _rows() -> list[list[Row]]:
    """Four images of three targets each; the second failed."""
    values = np.random.default_rng(3)
    images: list[list[Row]] = []
    for number in range(4):
        id_ = f"ordner {number}/ü.jpg"
        if number == 1:
            images.append([Row(id_, f"/in/{id_}", error="is no image")])
            continue
        images.append(
            [
                Row(
                    id_,
                    f"/in/{id_}",
                    k,
                    LABELS[k],
                    0.25 * (k + 1),
                    values.random(SHAPE).astype(np.float16),
                    values.random(FULL).astype(np.float16),
                    _image(50 * k),
                    None if number == 2 else 0.125,
                    512,
                    1.5,
                )
                for k in range(3)
            ]
        )
    return images


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output of two parts, with what does not belong to them beside."""
    place = tmp_path_factory.mktemp("readers") / "out put"
    output = Output(place)
    output.begin(RECORD, resume=False)
    writer = PartWriter(output, schema(RECORD["fingerprint"], SHAPE, FULL, overlays=True))
    for number, rows in enumerate(_rows()):
        writer.add(rows)
        if number == 2:
            writer.flush()
    writer.flush()
    (place / "_staging").mkdir()
    (place / "_staging" / "part-00000000-000001.parquet").write_bytes(b"not for readers")
    (place / ".ortcam-0").mkdir()
    (place / ".ortcam-0" / "part-00000000-000002.parquet").write_bytes(b"half")
    output.close()
    return place


def by_pandas(place: Path) -> Rows:
    pd = pytest.importorskip("pandas")

    frame = pd.read_parquet(place)
    return [{key: _plain(value) for key, value in row.items()} for row in frame.to_dict("records")]


def by_polars(place: Path) -> Rows:
    pl = pytest.importorskip("polars")

    return [
        {key: _plain(value) for key, value in row.items()}
        for row in pl.read_parquet(place / "part-*.parquet").to_dicts()
    ]


def by_duckdb(place: Path) -> Rows:
    duckdb = pytest.importorskip("duckdb")

    with duckdb.connect() as connection:
        found = connection.execute("SELECT * FROM read_parquet(?)", [f"{place}/part-*.parquet"])
        names = [column[0] for column in found.description or []]
        return [dict(zip(names, map(_plain, row), strict=True)) for row in found.fetchall()]


def by_datasets(place: Path) -> Rows:
    datasets = pytest.importorskip("datasets")

    rows = datasets.load_dataset(
        "parquet", data_files=f"{place}/part-*.parquet", split="train", cache_dir=str(place.parent / "cache")
    )
    return [{key: _plain(value) for key, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    """A value without what a reader makes of it: None for NaN, lists for arrays."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if isinstance(value, float) and math.isnan(value) else value


@pytest.mark.parametrize("read", [by_pandas, by_polars, by_duckdb, by_datasets])
def test_a_reader_finds_all_values(read: Callable[[Path], Rows], written: Path) -> None:
    wanted = {(row.id, row.target): row for rows in _rows() for row in rows}
    found = {(row["id"], None if row["target"] is None else int(row["target"])): row for row in read(written)}
    assert found.keys() == wanted.keys()
    for key, row in found.items():
        same = wanted[key]
        for name in ("path", "label", "probability", "estimated_error", "passes", "seconds", "error"):
            assert row[name] == getattr(same, name), name
        for name, shape in (("map", SHAPE), ("full_map", FULL)):
            values = np.full(shape, np.nan) if same.error is not None else getattr(same, name)
            np.testing.assert_array_equal(np.array(row[name], np.float64), values.astype(np.float64).ravel())
        overlay = None if same.overlay is None else {"bytes": same.overlay, "path": f"{same.id}-{same.target}.jpg"}
        assert row["overlay"] == overlay or (overlay is None and row["overlay"] == {"bytes": None, "path": None})


def test_datasets_shows_overlays_as_images(written: Path) -> None:
    datasets = pytest.importorskip("datasets")

    rows = datasets.load_dataset(
        "parquet", data_files=f"{written}/part-*.parquet", split="train", cache_dir=str(written.parent / "cache")
    )
    overlays = rows.cast_column("overlay", datasets.Image())["overlay"]
    assert [None if image is None else image.size for image in overlays] == [(8, 8)] * 3 + [None] + [(8, 8)] * 6
