"""Strict JSON: parsed into dataclasses with no field missing, none unknown, the right types, and finite numbers."""

import dataclasses
import json
import json.decoder
import math
import reprlib
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, Literal, NoReturn, TypeVar

from ortcam.errors import NotFiniteError

__all__ = ["OPTIONAL", "SchemaError", "decode", "encode_json", "parse_json"]


class SchemaError(ValueError):
    """A JSON value that does not have its declared type; the message says where and what is accepted."""


T = TypeVar("T")

# Metadata of a field that may be missing, and then has its default.
OPTIONAL: typing.Final = types.MappingProxyType({"optional": True})

_DEEPEST = 100
_OUTER = 4  # levels that are parsed in Python where threads share
_LARGEST = 2**63  # JSON's integers are of any size; what is computed with them is not
_NAMES: typing.Final = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def parse_json(text: str | bytes, *, sharing: bool = False) -> Any:
    """Parse a JSON text.

    Args:
        text: UTF-8, if it is bytes.
        sharing: let other threads run meanwhile, which takes longer: Python's own parser holds its lock to the end.

    Raises:
        ValueError: not JSON in UTF-8, NaN, numbers that are infinite or too large for a float, nesting too deep, or a
            key given twice in one object, because readers disagree on which one counts.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    try:
        value = json.loads(
            text,
            cls=_SharingDecoder if sharing else None,
            parse_constant=_refuse_number,
            parse_float=_finite,
            object_pairs_hook=_once,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    level = [value]
    for _ in range(_DEEPEST):
        level = [entry for item in level if isinstance(item, dict | list) for entry in _entries(item)]
        if not level:
            return value
    raise ValueError("nested too deeply")


def encode_json(
    value: object,
    *,
    indent: int | None = 1,
    ascii_only: bool = False,
    default: Callable[[Any], object] | None = None,
) -> str:
    """Encode a value as JSON, without a newline at the end.

    Args:
        value: made of dictionaries, lists, texts and numbers.
        indent: spaces per level; None keeps it on one line.
        ascii_only: escape everything that is not ASCII.
        default: converts a value that JSON does not have.

    Raises:
        NotFiniteError: a number is infinite or not a number, which JSON cannot hold.
    """
    try:
        return json.dumps(value, indent=indent, ensure_ascii=ascii_only, allow_nan=False, default=default)
    except ValueError:
        raise NotFiniteError(
            "a number to be written as JSON is infinite or not a number; accepted are finite numbers"
        ) from None


class _SharingDecoder(json.JSONDecoder):
    """Parses outer lists and objects in Python, between whose steps other threads run, and what is in them in C."""

    scan_once: Callable[[str, int], tuple[Any, int]]

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self._scan_inner = self.scan_once
        self.scan_once = self._scan
        self._depth = 0

    def _scan(self, text: str, index: int) -> tuple[Any, int]:
        sign = text[index : index + 1]
        if sign not in ("[", "{") or self._depth == _OUTER:
            return self._scan_inner(text, index)
        self._depth += 1
        try:
            if sign == "[":
                return _parse_list((text, index + 1), self._scan)
            return _parse_object((text, index + 1), self.strict, self._scan, None, self.object_pairs_hook, {})
        finally:
            self._depth -= 1


# The parts of the standard library's parser that are written in Python.
_parse_list: Callable[..., tuple[Any, int]] = json.decoder.JSONArray  # type: ignore[attr-defined]
_parse_object: Callable[..., tuple[Any, int]] = json.decoder.JSONObject  # type: ignore[attr-defined]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, entry in pairs:
        if name in value:
            raise ValueError(f"the entry {_name(name)} comes twice")
        value[name] = entry
    return value


def _entries(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse_number(text)


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"the number {text} is not finite")


def decode(kind: type[T], value: object, where: str) -> T:
    """Build a dataclass from parsed JSON.

    Fields may be dataclasses, `tuple[X, ...]`, tuples of fixed length, `dict[str, X]`, `Literal`, `X | None`, and str,
    int, float and bool. One whose metadata is `OPTIONAL` may be missing. A lone surrogate in a text is escaped, because
    nothing can print or write it.

    Raises:
        SchemaError: a field missing, unknown, or of another type.
    """
    if not isinstance(value, dict):
        raise SchemaError(f"{where} is {reprlib.repr(value)}, which is not an object")
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    optional = {field.name for field in fields if field.metadata.get("optional")}
    if missing := [name for name in hints if name not in value and name not in optional]:
        raise SchemaError(f"{where} lacks {', '.join(missing)}")
    if unknown := [name for name in value if name not in hints]:
        raise SchemaError(f"{where} has unknown entries {', '.join(map(_name, unknown[:5]))}")
    return kind(**{name: _field(hint, value[name], f"{where}.{name}") for name, hint in hints.items() if name in value})


def _field(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return decode(typing.cast("type[Any]", kind), value, where)
    if origin is types.UnionType:
        present = next(item for item in arguments if item is not type(None))
        return None if value is None else _field(present, value, where)
    if origin is Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list):
        return _items(arguments, value, where)
    if origin is dict and isinstance(value, dict):
        return {
            _field(str, key, f"a name in {where}"): _field(arguments[1], entry, f"{where}.{_name(key)}")
            for key, entry in value.items()
        }
    if kind is float and type(value) in (int, float) and abs(value) < _LARGEST:
        return float(value)
    if kind is str and type(value) is str:
        # JSON may have halves of a pair of surrogates, which no encoding has.
        return value.encode("utf-8", "backslashreplace").decode()
    if (kind is bool and type(value) is bool) or (kind is int and type(value) is int and abs(value) < _LARGEST):
        return value
    raise SchemaError(f"{where} is {reprlib.repr(value)}; accepted: {_in_words(kind)}")


def _name(key: str) -> str:
    """Name an entry in a message, in quotes if needed."""
    return key if key.isprintable() and 0 < len(key) <= 80 else reprlib.repr(key)


def _in_words(kind: Any) -> str:
    """Say what a field accepts."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return ", ".join(map(repr, arguments))
    if origin is dict:
        return "an object"
    if origin is tuple:
        return "a list" if arguments[-1] is Ellipsis else f"a list of {len(arguments)}"
    return str(_NAMES.get(kind, kind))


def _items(kinds: tuple[Any, ...], values: list[Any], where: str) -> tuple[Any, ...]:
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(values)
    if len(kinds) != len(values):
        raise SchemaError(f"{where} has {len(values)} items, not {len(kinds)}")
    return tuple(
        _field(kind, value, f"{where}[{i}]") for i, (kind, value) in enumerate(zip(kinds, values, strict=True))
    )
