"""`bundle.schema.json` says what the dataclasses say, and what an export writes obeys it."""

import dataclasses
import json
import types
import typing
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pytest

from ortcam.bundle import GATES, MANIFEST_NAME, SCHEMA_VERSION, Manifest
from ortcam.bundle.manifest import __file__ as bundle_module
from ortcam.bundle.plausibility import COUNTS, RANGES
from ortcam.images.preprocessing import LARGEST_SIDE

SCHEMA = json.loads(files("ortcam.bundle").joinpath("bundle.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
PRIMITIVES = {str: "string", int: "integer", float: "number", bool: "boolean"}


def resolved(entry: dict) -> dict:
    """The entry, or the definition that it refers to; of one that may be null what it is otherwise."""
    entry = entry.get("anyOf", [entry])[0]
    while "$ref" in entry:
        entry = SCHEMA["$defs"][entry["$ref"].removeprefix("#/$defs/")]
    return entry


def dataclasses_in(kind: type) -> set[type]:
    """A dataclass and all that its fields are made of."""
    found: set[type] = set()

    def visit(hint: Any) -> None:
        if dataclasses.is_dataclass(hint) and hint not in found:
            found.add(hint)
            for inner in typing.get_type_hints(hint).values():
                visit(inner)
        for argument in typing.get_args(hint):
            visit(argument)

    visit(kind)
    return found


def assert_same(hint: Any, entry: dict, where: str) -> None:
    """The JSON Schema of a field accepts the JSON types of its annotation."""
    arguments, origin = typing.get_args(hint), typing.get_origin(hint)
    if origin is types.UnionType:
        (hint,) = (argument for argument in arguments if argument is not type(None))
        assert len(arguments) == 2, where
        if "anyOf" in entry:
            present, absent = entry["anyOf"]
            assert absent == {"type": "null"}, where
        else:
            kind, absent = entry["type"]
            assert absent == "null", where
            present = {**entry, "type": kind}
        assert_same(hint, present, where)
        return
    entry = resolved(entry)
    if dataclasses.is_dataclass(hint):
        assert entry is SCHEMA["$defs"][hint.__name__], where
    elif origin is Literal:
        assert entry["enum"] == list(arguments), where
    elif origin is tuple:
        assert entry["type"] == "array", where
        if arguments[-1] is not Ellipsis:
            assert entry["minItems"] == entry["maxItems"] == len(arguments), where
        assert_same(arguments[0], entry["items"], where)
    elif origin is dict:
        assert entry["type"] == "object", where
        assert_same(arguments[1], entry["additionalProperties"], where)
    else:
        assert entry["type"] == PRIMITIVES[hint], where


def test_it_is_a_json_schema_of_draft_2020_12() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$defs"]["Manifest"]["properties"]["schema"]["const"] == SCHEMA_VERSION
    assert "Migration rule" in SCHEMA["description"]


def test_it_lies_beside_the_module_that_reads_bundles() -> None:
    assert Path(bundle_module).with_name("bundle.schema.json").is_file()


@pytest.mark.parametrize("kind", sorted(dataclasses_in(Manifest), key=lambda kind: kind.__name__))
def test_every_field_is_there_of_its_type_required_and_described(kind: type) -> None:
    definition = SCHEMA["$defs"][kind.__name__]
    hints = typing.get_type_hints(kind)
    assert definition["description"]
    optional = {field.name for field in dataclasses.fields(kind) if field.metadata.get("optional")}
    assert list(definition["properties"]) == list(hints)
    assert definition["required"] == [name for name in hints if name not in optional]
    assert definition["additionalProperties"] is False
    for name, hint in hints.items():
        entry = definition["properties"][name]
        assert entry["description"].endswith("."), name
        assert_same(hint, entry, f"{kind.__name__}.{name}")


def test_nothing_is_defined_that_no_field_has() -> None:
    assert set(SCHEMA["$defs"]) == {kind.__name__ for kind in dataclasses_in(Manifest)} | {"FileName"}


@pytest.fixture(scope="module")
def manifest(tiny_bundle: Path) -> dict:
    return json.loads((tiny_bundle / MANIFEST_NAME).read_text("utf-8"))


def test_what_an_export_writes_obeys_it(manifest: dict) -> None:
    VALIDATOR.validate(manifest)
    assert set(manifest["graphs"]["scorers"]) == {"linear", "noise", *GATES}


def test_a_bundle_with_a_classifier_obeys_it(branch_bundle: Path) -> None:
    VALIDATOR.validate(json.loads((branch_bundle / MANIFEST_NAME).read_text("utf-8")))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema", 1),
        ("surprise", 1),
        ("labels", []),
        ("activation", "tanh"),
        ("precision", "float16"),
        ("variants", None),
        ("variants.float32", {}),
        ("variants.int8", {"scorers": {}}),
        ("probe", {"images": "probe.npy"}),
        ("cut.channels", 0),
        ("layers", None),
        ("layers", [{}]),
        ("gradient", {"graph": "gradient.onnx"}),
        ("no_gradient", 5),
        ("preprocessing.std", [1, 0, 1]),
        ("preprocessing.mean", [0, 0]),
        ("preprocessing.scale", 0),
        ("preprocessing.channel_order", "gbr"),
        ("preprocessing.keep_aspect", None),
        ("preprocessing.crop_rounding", "up"),
        ("graphs.head", None),
        ("graphs.head", "../head.onnx"),
        ("graphs.classifier", "classifier.onnx"),
        ("files.C:evil", {"size": 1, "sha256": "0"}),
        ("files...", {"size": 1, "sha256": "0"}),
        ("files.features.onnx", {"size": "1", "sha256": "0"}),
        ("files.features.onnx", {"size": 1, "sha256": "0"}),
        ("files.features.onnx", {"size": -1, "sha256": "0" * 64}),
        ("files.a_ORT_MEM_ADDR_b", {"size": 1, "sha256": "0" * 64}),
        ("files.a\u0007b", {"size": 1, "sha256": "0" * 64}),
        ("preprocessing.height", 16_385),
        ("preprocessing.resize", 16_385),
    ],
)
def test_what_the_reader_refuses_it_refuses(manifest: dict, path: str, value: object) -> None:
    changed = json.loads(json.dumps(manifest))
    first, _, rest = path.partition(".")
    holder, name = (changed[first], rest) if rest else (changed, first)
    holder[name] = value
    assert not VALIDATOR.is_valid(changed)


def test_it_wants_a_gradient_or_the_reason_why_there_is_none(manifest: dict) -> None:
    parity = {"inputs": 2, "differences": 1e-6, "autograd": None, "tolerance": 1e-4}
    gradient = {"graph": "gradient.onnx", "inputs": ["features_1", "image"], "attention_heads": None, "parity": parity}
    for value, why, valid in (
        (gradient, None, True),
        (None, "none", True),
        (gradient, "none", False),
        (None, None, False),
    ):
        assert VALIDATOR.is_valid({**manifest, "gradient": value, "no_gradient": why}) is valid
    heads = gradient | {"attention_heads": 3}
    assert VALIDATOR.is_valid({**manifest, "gradient": heads, "no_gradient": None})
    for wrong in (0, "3", 2**16 + 1):
        assert not VALIDATOR.is_valid(
            {**manifest, "gradient": gradient | {"attention_heads": wrong}, "no_gradient": None}
        )
    for inputs in (["features", "features"], ["maps"], ["features_0"], "features"):
        assert not VALIDATOR.is_valid({**manifest, "gradient": gradient | {"inputs": inputs}, "no_gradient": None})


def test_the_reader_has_the_same_bounds() -> None:
    def entry(path: str) -> dict:
        *holders, name = path.split(".")
        definition = SCHEMA["$defs"]["Manifest"]
        for holder in holders:
            definition = resolved(definition["properties"][holder])
        return definition["properties"][name]

    for path, bounds in RANGES.items():
        assert (entry(path)["minimum"], entry(path)["maximum"]) == bounds, path
    for path, (fewest, most) in COUNTS.items():
        kind = "Items" if entry(path)["type"] == "array" else "Properties"
        assert (entry(path).get(f"min{kind}", 0), entry(path)[f"max{kind}"]) == (fewest, most), path
    for name in ("height", "width", "resize"):
        assert entry(f"preprocessing.{name}")["maximum"] == LARGEST_SIDE
