"""Schemas of parameters: what they allow is accepted by the server, and what they forbid is refused."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ortcam.bundle import read_bundle
from ortcam.bundle.shipped import bundle_path
from ortcam.errors import OptionError, OrtcamError
from ortcam.methods import AUTO_METHOD, COMMON_OPTIONS, METHODS, Method, Option
from ortcam.serve.openapi.parameters import name_of, parameter_schemas, schema_of
from ortcam.serve.protocols.asked import PARAMETERS, Asked
from ortcam.serve.settings import RequestLimits

SCHEMAS = parameter_schemas()
MANIFEST = read_bundle(bundle_path()).manifest
# Limits so wide that only the library's own ranges count.
WIDE = RequestLimits(samples=1_000_000, copies=1_000_000, passes=10**12, targets=1000)
LIMITS = ("budget", "tolerance", "completion", "sampling_error", "precision")
METHOD_NAMES = [method.name for method in (AUTO_METHOD, *METHODS)]


def _method(name: str) -> Method:
    return next(method for method in (AUTO_METHOD, *METHODS) if method.name == name)


def _properties(method: Method) -> dict[str, Any]:
    properties: dict[str, Any] = SCHEMAS[name_of(method)]["properties"]
    return properties


def _allowed(schema: Mapping[str, Any]) -> Iterator[Any]:
    """Values at the edges of what a schema allows."""
    if "anyOf" in schema:
        for one in schema["anyOf"]:
            yield from _allowed(one)
    elif "enum" in schema:
        yield from schema["enum"]
    elif "const" in schema:
        yield schema["const"]
    elif schema.get("type") == "boolean":
        yield from (True, False)
    elif schema.get("type") in ("integer", "number"):
        yield from (schema[key] for key in ("minimum", "maximum") if key in schema)
        if "exclusiveMinimum" in schema:
            yield schema["exclusiveMinimum"] + 0.5


def _forbidden(schema: Mapping[str, Any]) -> Iterator[Any]:
    """Values just beyond the edges, and of other types."""
    yield from ({}, [[]])
    if "enum" in schema or schema.get("type") == "boolean":
        yield "no such word"
    if schema.get("type") in ("integer", "number"):
        yield from ("no number", schema.get("minimum", schema.get("exclusiveMinimum", 0)) - 1)
        yield schema.get("maximum", schema.get("exclusiveMaximum", 0)) + 1
        if schema["type"] == "integer":
            yield schema["minimum"] + 0.5


def _is_accepted(method: Method, given: Mapping[str, Any]) -> bool:
    companions = {"augment": 2} if any(name.startswith("augment_") for name in given) else {}
    try:
        Asked.of({"method": method.name, **companions, **given}, WIDE, MANIFEST)
    except OrtcamError:
        return False
    return True


def _fits(method: Method, given: Mapping[str, Any]) -> bool:
    """Whether the method suits the shipped bundle at all."""
    return _is_accepted(method, given)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_the_properties_are_the_parameters_and_the_options_of_the_method(name: str) -> None:
    method = _method(name)
    limited = method is AUTO_METHOD or method.masks_image
    expected = {parameter for parameter in PARAMETERS if limited or parameter not in LIMITS}
    options = {option.name for option in (*method.options, *COMMON_OPTIONS)}
    assert set(_properties(method)) == expected | options
    for option in (*method.options, *COMMON_OPTIONS):
        assert _properties(method)[option.name]["description"] == option.help


@pytest.mark.sample(every=2)
@pytest.mark.whole
@pytest.mark.parametrize("name", METHOD_NAMES)
def test_what_a_schema_allows_is_accepted(name: str) -> None:
    method = _method(name)
    if not _fits(method, {}):
        pytest.skip("the shipped bundle has another head")
    validator = Draft202012Validator(SCHEMAS[name_of(method)])
    for parameter, schema in _properties(method).items():
        if parameter in ("method", "precision", "layer", "sampling_error"):  # the bundle and the method decide
            continue
        for value in _allowed(schema):
            given = {"method": method.name, parameter: value}
            assert validator.is_valid(given), given
            if parameter == "top_k" or (parameter == "target" and not isinstance(value, str)):
                continue  # as many classes as the bundle has
            if (parameter, value) == ("augment_rotation", schema.get("maximum")):
                continue  # the words round pi
            assert _is_accepted(method, {parameter: value}), given


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_what_a_schema_forbids_is_refused(name: str) -> None:
    method = _method(name)
    if not _fits(method, {}):
        pytest.skip("the shipped bundle has another head")
    validator = Draft202012Validator(SCHEMAS[name_of(method)])
    for parameter, schema in _properties(method).items():
        if parameter == "method":
            continue
        for value in _forbidden(schema):
            given = {"method": method.name, parameter: value}
            assert not validator.is_valid(given), given
            assert not _is_accepted(method, {parameter: value}), given
    for unknown in ("no_such_parameter", "image"):
        assert not validator.is_valid({"method": method.name, unknown: 1})
        assert not _is_accepted(method, {unknown: 1})


def test_limits_are_refused_for_a_method_without_masks_by_both() -> None:
    given = {"method": "recipro-cam", "budget": 0.5}
    assert not Draft202012Validator(SCHEMAS["Parameters.recipro-cam"]).is_valid(given)
    with pytest.raises(OptionError, match="budget with recipro-cam"):
        Asked.of(given, WIDE, MANIFEST)


def test_options_of_unknown_words_get_no_schema_that_lies() -> None:
    anything = Option("seasoning", None, "whatever tastes", lambda value: value, "of a registered method")
    assert schema_of(anything) == {"description": "of a registered method"}
    word_or_number = Option("std", None, "'authors' or a number from 0 to 3", lambda value: value, "spread")
    assert schema_of(word_or_number) == {
        "anyOf": [{"const": "authors"}, {"type": "number", "minimum": 0, "maximum": 3}],
        "description": "spread",
    }
