"""METHOD[:KEY=VALUE...]: a method with options, limits and precision, as `evaluate` and `benchmark` take it."""

import argparse
import dataclasses
from typing import Any

from ortcam.errors import OptionError
from ortcam.methods import MASKED_ONLY, Method, resolve_method
from ortcam.request.request import LIMITS, ExplainRequest
from ortcam.support.ranges import shown

__all__ = ["MethodEntry", "parse_entry"]


@dataclasses.dataclass(frozen=True)
class MethodEntry:
    """A method with what was said of it.

    Attributes:
        name: METHOD[:KEY=VALUE...] with the method's own name.
        method: the method.
        details: what was said of it, in words; "" for nothing.
        arguments: of `ExplainRequest.of`, the method included.
        precision: of the masked passes; None takes the bundle's own.
    """

    name: str
    method: Method
    details: str
    arguments: dict[str, Any]
    precision: str | None

    @property
    def request(self) -> ExplainRequest:
        """What is asked, for classes that are still to be chosen."""
        return ExplainRequest.of(**self.arguments)


def parse_entry(text: str) -> MethodEntry:
    """Parse METHOD[:KEY=VALUE...], where a key is an option of the method or of all methods, a limit or `precision`.

    Raises:
        OptionError: an unknown method, key or value, or one that is given twice.

    Example:
        >>> parse_entry("IScam:budget=25%").arguments
        {'method': 'iscam', 'budget': 0.25}
    """
    name, *pairs = text.strip().split(":")
    method = resolve_method(name.strip(), {}).method
    limits: dict[str, Any] = {}
    options: dict[str, object] = {}
    precision = None
    details = []
    for pair in pairs:
        key, equals, value = (part.strip() for part in pair.partition("="))
        key = key.replace("-", "_")
        if not equals:
            raise OptionError(f"{text!r}: accepted is METHOD or METHOD:KEY=VALUE[:KEY=VALUE...]")
        if key in limits or key in options or (key == "precision" and precision is not None):
            raise OptionError(f"{text!r}: {key} is given twice")
        details.append(f"{key.replace('_', ' ')} {value}")
        if key == "precision":
            precision = value
        elif key in LIMITS:
            try:
                limits[key] = LIMITS[key](value)
            except (ValueError, argparse.ArgumentTypeError):
                raise OptionError(f"{text!r}: {key}={shown(value)} is not a number") from None
        else:
            options[key] = value
    resolve_method(method.name, options)  # before they meet the arguments of a request, which have other names
    arguments = {"method": method.name, **limits, **options}
    ExplainRequest.of(**arguments)
    if precision is not None and not method.masks_image:
        raise OptionError(f"{text!r}: precision {MASKED_ONLY}")
    canonical = ":".join([method.name, *(pair.strip() for pair in pairs)])
    return MethodEntry(canonical, method, ", ".join(details), arguments, precision)
