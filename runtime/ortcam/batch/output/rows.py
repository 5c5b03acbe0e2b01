"""Rows: what is known of one image and one target, the schema of their table, and the table itself."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ortcam.bundle import Manifest
from ortcam.errors import OutputError
from ortcam.methods.gradient import layer_places
from ortcam.request import ExplainRequest
from ortcam.support.strict_json import encode_json, parse_json

__all__ = [
    "FORMAT",
    "METADATA_KEY",
    "Row",
    "described",
    "encode",
    "full_shape",
    "map_shape",
    "schema",
    "shape_of",
    "table",
]

FORMAT: Final = 1  # of the rows; another one is refused on resume
METADATA_KEY: Final = b"ortcam"  # of the schema's metadata

_SHAPE_KEY: Final = b"shape"  # of a map's field
_OVERLAY: Final = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """One image and one target; or one image that failed, of which only `id`, `path` and `error` are known.

    In a table, the maps of an image that failed are NaN, and all else is null.

    Attributes:
        id: of the image, unique in the output.
        path: where the image lies.
        target: index of the class; -1 where a score is explained.
        label: its name; the text of the score.
        probability: of the class, for the image as it is; None where values are no probabilities.
        map: float16 [h,w] in [0,1], at the resolution of the layer.
        full_map: float16 [H,W] in [0,1], at the size of the model's input; None unless it is asked for.
        overlay: JPEG bytes; None unless they are asked for.
        estimated_error: of the map; None if the method has no estimate.
        passes: masked forward passes for this image.
        seconds: wall time for this image, all its targets together.
        error: why the image failed, in one sentence; None if it did not.
        value: of the score or the output, for the image as it is; None where there is a probability.
    """

    id: str
    path: str
    target: int | None = None
    label: str | None = None
    probability: float | None = None
    map: NDArray[np.float16] | None = None
    full_map: NDArray[np.float16] | None = None
    overlay: bytes | None = None
    estimated_error: float | None = None
    passes: int | None = None
    seconds: float | None = None
    error: str | None = None
    value: float | None = None

    @property
    def nbytes(self) -> int:
        """About how much it takes in memory."""
        arrays = sum(array.nbytes for array in (self.map, self.full_map) if array is not None)
        texts = sum(len(text) for text in (self.id, self.path, self.label, self.error) if text is not None)
        return arrays + texts + len(self.overlay or b"") + 64


def map_shape(manifest: Manifest, request: ExplainRequest) -> tuple[int, int]:
    """Rows and columns of the column `map`: those of the layer, or of the finest of several.

    Args:
        manifest: of the bundle.
        request: with a method in place of "auto", as `ExplainRequest.for_bundle` returns it.
    """
    cuts = list(manifest.cuts.values())
    layer = request.settings.options.get("layer")
    places = layer_places(layer, cuts) if isinstance(layer, str) else (0,)
    finest = max((cuts[place] for place in places), key=lambda cut: cut.height * cut.width, default=manifest.cut)
    return finest.height, finest.width


def full_shape(manifest: Manifest) -> tuple[int, int]:
    """Rows and columns of the column `full_map`: those of the model's input."""
    return manifest.preprocessing.height, manifest.preprocessing.width


def schema(
    fingerprint: Mapping[str, Any],
    shape: tuple[int, int],
    full: tuple[int, int] | None = None,
    *,
    overlays: bool = False,
    values: bool = False,
) -> pa.Schema:
    """The schema of all parts of an output.

    Its metadata has the key `ortcam`, a JSON object: `format`, `fingerprint`, `map_shape` and `full_shape`.

    Args:
        fingerprint: what the rows depend on, as JSON types.
        shape: [h,w] of the maps.
        full: [H,W] of the full maps; None if there are none.
        overlays: whether there are overlays.
        values: whether what is explained has a value and no probability.

    Raises:
        NotFiniteError: a number of the fingerprint is infinite or not a number.
    """
    fields = [
        pa.field("id", pa.string(), nullable=False),
        pa.field("path", pa.string()),
        pa.field("target", pa.int32()),
        pa.field("label", pa.string()),
        pa.field("probability", pa.float32()),
        *([pa.field("value", pa.float32())] if values else []),
        _maps("map", shape),
        *([] if full is None else [_maps("full_map", full)]),
        *([pa.field("overlay", _OVERLAY)] if overlays else []),
        pa.field("estimated_error", pa.float32()),
        pa.field("passes", pa.int32()),
        pa.field("seconds", pa.float32()),
        pa.field("error", pa.string()),
    ]
    record = {
        "format": FORMAT,
        "fingerprint": dict(fingerprint),
        "map_shape": list(shape),
        "full_shape": None if full is None else list(full),
    }
    return pa.schema(fields, metadata={METADATA_KEY: encode_json(record, indent=None).encode()})


def described(found: pa.Schema, name: str) -> dict[str, Any]:
    """The JSON object in the metadata of a part's schema: `format`, `fingerprint`, `map_shape`, `full_shape`.

    Args:
        found: the schema.
        name: of the part, for messages.

    Raises:
        OutputError: ortcam did not write the part.
    """
    try:
        record = parse_json((found.metadata or {})[METADATA_KEY])
        known = isinstance(record["format"], int) and isinstance(record["fingerprint"], dict)
        if known and {"id", "path", "error"} <= set(found.names):
            return dict(record)
    except (KeyError, TypeError, ValueError):
        pass
    raise OutputError(f"{name}: is no part of an output of `ortcam batch`; move it out of the folder")


def shape_of(field: pa.Field) -> tuple[int, int]:
    """Rows and columns of the maps in a column, by the metadata of its field."""
    height, width = json.loads(field.metadata[_SHAPE_KEY])
    return int(height), int(width)


def table(rows: Sequence[Row], into: pa.Schema) -> pa.Table:
    """The table of some rows, in their order.

    Args:
        rows: their maps have the shapes of the schema.
        into: the schema, as `schema` makes it.

    Raises:
        ValueError: a map has another shape.
    """
    return pa.Table.from_arrays([_column(rows, field) for field in into], schema=into)


def _maps(name: str, shape: tuple[int, int]) -> pa.Field:
    kind = pa.list_(pa.field("element", pa.float16(), nullable=False), shape[0] * shape[1])
    return pa.field(name, kind, nullable=False, metadata={_SHAPE_KEY: json.dumps(list(shape)).encode()})


def _column(rows: Sequence[Row], field: pa.Field) -> pa.Array:
    values = [getattr(row, field.name) for row in rows]
    if field.name == "overlay":
        values = [
            None if value is None else {"bytes": value, "path": f"{row.id}-{row.target}.jpg"}
            for row, value in zip(rows, values, strict=True)
        ]
    elif pa.types.is_fixed_size_list(field.type):
        return _stacked(values, field)
    return pa.array(values, field.type)


def _stacked(maps: Sequence[NDArray[np.float16] | None], field: pa.Field) -> pa.Array:
    """A column of maps. One that is missing is NaN: pyarrow before 26 reads no null in lists of fixed size."""
    height, width = shape_of(field)
    flat = np.full((len(maps), height, width), np.nan, np.float16)
    for place, array in enumerate(maps):
        if array is None:
            continue
        if array.shape != (height, width):
            raise ValueError(f"{field.name} is {list(array.shape)}, and {[height, width]} in the schema")
        flat[place] = array
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel(), pa.float16(), from_pandas=False), type=field.type)


def encode(rows: pa.Table) -> bytes:
    """The bytes of a Parquet file with some rows, compressed with Zstandard.

    The encodings are the plain ones: DuckDB does not read float16 whose bytes are split.
    """
    sink = pa.BufferOutputStream()
    repeated = [name for name in ("label", "error") if name in rows.column_names]  # what a dictionary makes smaller
    pq.write_table(rows, sink, compression="zstd", use_dictionary=repeated)
    return bytes(sink.getvalue().to_pybytes())
