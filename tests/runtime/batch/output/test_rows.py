"""Rows of a batch: columns, nulls, the shape of maps, and what the metadata says."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.common.batches import same
from tests.conftest import REPOSITORY

from ortcam.batch.output.rows import FORMAT, METADATA_KEY, Row, described, encode, map_shape, schema, table
from ortcam.bundle.reading import read_bundle
from ortcam.bundle.shipped import bundle_path
from ortcam.errors import OutputError
from ortcam.request import ExplainRequest

SHAPE = (2, 3)
MAP = np.array([[0, 0.5, 1], [0.1, 0.2, 0.3]], np.float16)
GOOD = Row("a", "in/a.jpg", 3, "dog", 0.25, MAP, estimated_error=0.1, passes=7, seconds=1.5)
BAD = Row("ü \U0001f600", "in/b.jpg", error="in/b.jpg: is no image")


def test_a_table_has_the_values_of_its_rows_also_after_parquet() -> None:
    made = table([GOOD, BAD], schema({"method": "cam"}, SHAPE))
    found = pq.read_table(pa.BufferReader(encode(made)))
    assert same(found, made)
    good, bad = found.to_pylist()
    np.testing.assert_array_equal(np.array(good.pop("map"), np.float16).reshape(SHAPE), MAP)
    assert good == {
        "id": "a",
        "path": "in/a.jpg",
        "target": 3,
        "label": "dog",
        "probability": 0.25,
        "estimated_error": float(np.float32(0.1)),
        "passes": 7,
        "seconds": 1.5,
        "error": None,
    }
    assert np.isnan(bad.pop("map")).all()
    assert {name: value for name, value in bad.items() if value is not None} == {
        "id": BAD.id,
        "path": BAD.path,
        "error": BAD.error,
    }


def test_columns_come_in_order_with_the_optional_ones_where_they_are_asked_for() -> None:
    names = ["id", "path", "target", "label", "probability", "map", "estimated_error", "passes", "seconds", "error"]
    assert schema({}, SHAPE).names == names
    names[6:6] = ["full_map", "overlay"]
    wide = schema({}, SHAPE, (4, 6), overlays=True)
    assert wide.names == names
    assert wide.field("map").type == pa.list_(pa.field("element", pa.float16(), nullable=False), 6)
    assert wide.field("full_map").type.list_size == 24
    row = Row("x/y", "p", 1, "cat", 0.5, MAP, np.zeros((4, 6), np.float16), b"\xff\xd8")
    assert table([row], wide)["overlay"].to_pylist() == [{"bytes": b"\xff\xd8", "path": "x/y-1.jpg"}]


def test_the_metadata_say_what_the_rows_depend_on() -> None:
    made = schema({"method": "cam", "budget": 0.12}, SHAPE, (4, 6))
    assert described(made, "part") == {
        "format": FORMAT,
        "fingerprint": {"method": "cam", "budget": 0.12},
        "map_shape": [2, 3],
        "full_shape": [4, 6],
    }
    assert json.loads(made.field("map").metadata[b"shape"]) == [2, 3]
    assert json.loads(made.field("full_map").metadata[b"shape"]) == [4, 6]


@pytest.mark.parametrize("metadata", [None, {}, {METADATA_KEY: b"{"}, {METADATA_KEY: b"[]"}, {METADATA_KEY: b"{}"}])
def test_a_table_of_somebody_else_is_refused(metadata: dict[bytes, bytes] | None) -> None:
    with pytest.raises(OutputError, match=r"x\.parquet: is no part"):
        described(pa.schema([pa.field("id", pa.string())], metadata=metadata), "x.parquet")


def test_a_table_that_lacks_columns_is_refused() -> None:
    made = schema({}, SHAPE)
    with pytest.raises(OutputError, match="is no part"):
        described(made.remove(made.get_field_index("error")), "x.parquet")


def test_a_map_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"map is \[2, 3\], and \[3, 2\]"):
        table([GOOD], schema({}, (3, 2)))


def test_no_rows_make_an_empty_table() -> None:
    assert table([], schema({}, SHAPE)).num_rows == 0


@pytest.mark.parametrize("arguments", [{}, {"method": "cam"}, {"method": "layer-cam"}, {"augment": 2}])
def test_the_shape_of_the_maps_is_known_before_the_first_image(arguments: dict[str, object]) -> None:
    manifest = read_bundle(bundle_path()).manifest
    request = ExplainRequest.of(**arguments).for_bundle(manifest)  # type: ignore[arg-type]
    assert map_shape(manifest, request) == (manifest.cut.height, manifest.cut.width)


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        ({"method": "layer-cam"}, (16, 24)),
        ({"method": "grad-cam"}, (8, 12)),
        ({"method": "grad-cam", "layer": "early"}, (16, 24)),
        ({"method": "cam"}, (8, 12)),
    ],
)
def test_of_several_layers_the_finest_that_the_method_uses_counts(
    arguments: dict[str, object], shape: tuple[int, int]
) -> None:
    manifest = read_bundle(REPOSITORY / "tests" / "data" / "tiny.ortcam").manifest
    early = dataclasses.replace(manifest.cut, module="early", height=16, width=24)
    manifest = dataclasses.replace(manifest, layers=(early,))
    request = ExplainRequest.of(**arguments).for_bundle(manifest)  # type: ignore[arg-type]
    assert map_shape(manifest, request) == shape
