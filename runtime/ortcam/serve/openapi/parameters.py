"""The parameters of a request as JSON schemas, made from the table of methods and the ranges of the library.

A method that is registered later is there, too, because nothing of this is made before it is asked for.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

from ortcam.methods import AUTO_METHOD, COMMON_OPTIONS, METHODS, Method, Option
from ortcam.serve.protocols.asked import MOST_BATCH, PARAMETERS
from ortcam.serve.protocols.v1 import PREDICT_PARAMETERS
from ortcam.support.ranges import CHANNELS, DEADLINE, SAMPLING_ERROR, SHARE, TOLERANCE, TOP_K, Range

__all__ = ["name_of", "parameter_schemas", "predict_parameters", "schema_of"]

Schema = dict[str, Any]

_NUMBER: Final = re.compile(r"a (whole )?number from (\S+) to (\S+)")
# An array of a score: a list of numbers, or of such lists.
_NUMBERS: Final[Schema] = {
    "type": "array",
    "items": {"anyOf": [{"type": "number"}, {"type": "array", "items": {"type": "number"}}]},
    "minItems": 1,
}
_ARRAYS: Final[Schema] = {"type": "object", "additionalProperties": _NUMBERS, "minProperties": 1}
_NONSENSE: Final = "a word that no option knows"
_WORD: Final = re.compile(r"'([^']+)' or ")
# The parameters that limit forward passes go with methods that mask the image, and with auto.
_LIMITS: Final = ("budget", "tolerance", "completion", "sampling_error", "precision")


def name_of(method: Method) -> str:
    """The name of the schema of a method's parameters; component names have no plus sign."""
    return f"Parameters.{method.name.replace('+', 'p')}"


def schema_of(option: Option) -> Schema:
    """An option of a method as a JSON schema, from the words for what it accepts.

    Example:
        >>> schema_of(Option.number("steps", 10, least=1, most=100, help="per channel"))
        {'type': 'integer', 'minimum': 1, 'maximum': 100, 'description': 'per channel', 'default': 10}
    """
    schema = _accepted(option) | {"description": option.help}
    if option.default is not None:
        schema["default"] = option.default
    return schema


def parameter_schemas() -> dict[str, Schema]:
    """All schemas of parameters by name: `Parameters`, and one per method that it refers to."""
    methods = [AUTO_METHOD, *METHODS]
    schemas = {name_of(method): _of_method(method) for method in methods}
    return {
        "Parameters": {
            "description": "What a request asks for. Each method has parameters of its own; `auto` is the default.",
            "anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in schemas],
        },
        **schemas,
    }


def predict_parameters() -> Schema:
    """The parameters of a prediction."""
    known: dict[str, Schema] = {
        "top_k": _of_range(TOP_K) | {"default": 5},
        "probabilities": {"type": "boolean", "default": False},
        "values": {"type": "boolean", "default": False},
        "deadline_ms": _of_range(DEADLINE),
    }
    properties = {name: known.get(name, {}) | {"description": text} for name, text in PREDICT_PARAMETERS.items()}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _of_method(method: Method) -> Schema:
    auto = method is AUTO_METHOD
    own = {option.name: schema_of(option) for option in method.options}
    common = {option.name: schema_of(option) for option in COMMON_OPTIONS}
    # Methods that say which score of a class they take have an option of this name; an expression goes with it, too.
    of_class = {key: value for key, value in own.get("score", {}).items() if key in ("default", "description")}
    shared = {name: schema for name, schema in _shared().items() if auto or method.masks_image or name not in _LIMITS}
    names = [method.name, *method.aliases]
    schema: Schema = {
        "type": "object",
        "title": method.title,
        "description": f"{method.summary} {method.use}".strip(),
        "properties": {
            "method": {"enum": names, "description": PARAMETERS["method"]},
            **own,
            **{name: value for name, value in shared.items() if name != "method"},
            **common,
        },
        "additionalProperties": False,
    }
    schema["properties"]["score"] |= of_class
    if auto:
        schema["properties"]["method"]["default"] = method.name
    else:
        schema["required"] = ["method"]
    return schema


def _shared() -> dict[str, Schema]:
    """The parameters that belong to no method: the description is that of the request, the bounds are the library's."""
    single = [{"type": "integer", "minimum": 0}, {"type": "string", "minLength": 1}]
    found: dict[str, Schema] = {
        "method": {"type": "string"},
        "target": {"anyOf": [*single, {"type": "array", "items": {"anyOf": single}, "minItems": 1}]},
        "top_k": _of_range(TOP_K) | {"default": 1},
        "score": {"type": "string", "minLength": 1},
        "score_arrays": {"anyOf": [_ARRAYS, {"type": "string", "minLength": 1}]},
        "budget": {"anyOf": [_of_range(CHANNELS), _of_range(SHARE), {"type": "string", "pattern": r"^[0-9.eE+-]+%?$"}]},
        "deadline_ms": _of_range(DEADLINE),
        "tolerance": _of_range(TOLERANCE),
        "completion": {"enum": ["gaussian-process", "none"], "default": "gaussian-process"},
        "sampling_error": _of_range(SAMPLING_ERROR),
        "batch_size": {
            "anyOf": [{"type": "integer", "minimum": 1, "maximum": MOST_BATCH}, {"const": "auto"}],
            "default": "auto",
        },
        "precision": {"enum": ["fp32", "fp16", "int8", "qnn", "float32", "float16"]},
        "map": {"enum": ["low", "full", "none"], "default": "low"},
        "overlay": {"enum": ["none", "png", "jpeg"], "default": "none"},
    }
    return {name: found.get(name, {}) | {"description": text} for name, text in PARAMETERS.items()}


def _of_range(range_: Range) -> Schema:
    least, most = (
        ("exclusiveMinimum" if range_.open_below else "minimum"),
        ("exclusiveMaximum" if range_.open_above else "maximum"),
    )
    return {"type": "integer" if range_.whole else "number", least: range_.least, most: range_.most}


def _accepted(option: Option) -> Schema:
    words = option.accepted
    if isinstance(option.default, bool):
        return {"type": "boolean"}
    choices = words.split(", ")
    if _accepts_all(option, choices) and not _accepts_all(option, [_NONSENSE]):
        return {"enum": choices}
    if found := _NUMBER.fullmatch(words[len(_alternative(words)) :]):
        whole, least, most = found.groups()
        kind = "integer" if whole else "number"
        number: Schema = {"type": kind, "minimum": _read(least), "maximum": _read(most)}
        if word := _WORD.match(words):
            return {"anyOf": [{"const": word[1]}, number]}
        return number
    if isinstance(option.default, str):
        return {"type": "string"}
    return {}  # of a method that somebody registered


def _alternative(words: str) -> str:
    found = _WORD.match(words)
    return found[0] if found else ""


def _accepts_all(option: Option, choices: Iterable[str]) -> bool:
    try:
        return all(option.parse(choice) == choice for choice in choices)
    except (ValueError, TypeError, KeyError):
        return False


def _read(text: str) -> float | int:
    return int(text) if text.isdigit() else float(text)
