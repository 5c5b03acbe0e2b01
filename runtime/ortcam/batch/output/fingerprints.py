"""Fingerprints: what the rows of an output depend on, compared, with each difference named."""

from collections.abc import Mapping
from typing import Any, Final

from ortcam.support.strict_json import encode_json, parse_json

__all__ = ["as_json", "differences"]

_LONGEST: Final = 80  # characters of a value in a message


def as_json(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """A fingerprint as it is read back: lists for tuples.

    Raises:
        NotFiniteError: a number is infinite or not a number.
    """
    return dict(parse_json(encode_json(dict(fingerprint))))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Each difference of two fingerprints in words; entries within entries are compared one by one.

    Of another method the options are others, too, and are not named.

    Example:
        >>> differences({"method": "cam", "limits": {"budget": None}}, {"method": "cam", "limits": {"budget": 0.5}})
        ['limits.budget was none, now 0.5']
    """
    before, now = _flat(as_json(old)), _flat(as_json(new))
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if "method" in keys:
        keys = [key for key in keys if not key.startswith("options.")]
    return [f"{key} was {_short(before.get(key))}, now {_short(now.get(key))}" for key in keys]


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{above}{key}."))
        else:
            flat[f"{above}{key}"] = value
    return flat


def _short(value: object) -> str:
    text = "none" if value is None else encode_json(value, indent=None)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
